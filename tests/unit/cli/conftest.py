"""A small store and a way to run commands in process."""

from __future__ import annotations

import io
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from fakes.hub import FakeHub
from huggingface_hub import constants

from subllm.cli import app, daemon
from subllm.models.store.store import Store

from . import tiny_store
from .samples import HUB_FILES, Ran, fill, with_recipe


@dataclass(frozen=True)
class Live:
    """A running server and the store that it serves."""

    server: daemon.Daemon
    store: Store


@pytest.fixture(scope="session")
def code(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A directory with Python and Java files of some length, all different."""
    directory = tmp_path_factory.mktemp("code")
    for number in range(48):
        lines = [
            f"def function_{number}_{line}(value):\n    return value * {number + line} - {line}\n"
            for line in range(20)
        ]
        (directory / f"module_{number}.py").write_text("\n".join(lines))
        (directory / f"Class{number}.java").write_text(
            f"class Class{number} {{ int twice(int v) {{ return v + v + {number}; }} }}\n" * 12
        )
    return str(directory)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little text, few problems, and no lower priority for the tests that follow."""
    monkeypatch.setattr("subllm.making.extraction.recovery_text.LEARNED_TOKENS", 20_000)
    monkeypatch.setattr("subllm.making.extraction.recovery_text.JUDGED_TOKENS", 512)
    monkeypatch.setattr("subllm.measuring.evaluation.kept._ASKED", 2)
    monkeypatch.setattr(os, "nice", lambda _: 0)


@pytest.fixture(autouse=True)
def no_recovery_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `extract` recovers for unless a test says otherwise."""
    monkeypatch.setattr("subllm.making.extraction.defaults.DEFAULT_RECOVERY", "off")


@pytest.fixture
def subllm(
    capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Ran]:
    def run(*arguments: str) -> Ran:
        status = app.run(with_recipe(tmp_path_factory.mktemp("recipe"), *arguments))
        captured = capsys.readouterr()
        return Ran(status, captured.out, captured.err)

    return run


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """The store that commands see; see `fill`."""
    return fill(tmp_path / "subllm-home")


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Put bytes into stdin."""

    def put(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    return put


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """The hub that commands see, with a catalog that names its one repository."""
    entry = {
        "params": 1_000_000,
        "licence": {"id": "MIT", "url": "https://example.org"},
        "prompt": {"context_length": 2048},
        "sources": [{"type": "hub", "repo": "org/tiny"}],
    }
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(yaml.safe_dump({"bases": {"tiny:1m": entry, "gone:1m": entry | {
        "sources": [{"type": "hub", "repo": "org/gone"}]}}}))  # fmt: skip
    monkeypatch.setenv("SUBLLM_CATALOG", str(catalog))
    for name in ("HF_TOKEN", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "hf" / "token"))
    with FakeHub() as fake:
        fake.add_repo("org/tiny", HUB_FILES)
        # As HF_ENDPOINT does before the library is imported.
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", fake.url + template)
        monkeypatch.setattr(constants, "ENDPOINT", fake.url)
        yield fake


@pytest.fixture(scope="session")
def tiny_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of models that can be asked; not to be changed."""
    return tiny_store.made_in(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tiny(tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The same in the place that commands look at, to do with as one likes."""
    monkeypatch.setenv("SUBLLM_THREADS", "1")
    home = tmp_path / "subllm-home"
    shutil.copytree(tiny_home, home)
    return Store(home)


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    def free() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return free


@pytest.fixture(scope="session")
def live_server(
    tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]
) -> Iterator[Live]:
    """A server that was really detached, on a store of its own: the same models with a
    longer context, so that a reply can take longer than stopping it."""
    directory = tmp_path_factory.mktemp("served")
    home = directory / "home"
    tiny_store.build(home, tiny_store.write_checkpoint(directory / "checkpoint", context=8192))
    server = daemon.launch(home, "127.0.0.1", free_port(), ["--threads", "1"], None)
    yield Live(server, Store(home))
    daemon.stop(server)


@pytest.fixture
def live(live_server: Live, monkeypatch: pytest.MonkeyPatch) -> Live:
    """The live server, which the commands of this test find."""
    monkeypatch.setenv("SUBLLM_HOME", str(live_server.store.root))
    monkeypatch.setenv("SUBLLM_THREADS", "1")
    return live_server
