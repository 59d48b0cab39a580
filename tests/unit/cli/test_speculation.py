"""Smaller models that draft for a larger one, on the command line: here and by a server."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from subllm.cli import daemon
from subllm.models.store.store import Store

from .samples import Ran
from .tiny_store import BASE, add_larger, build, write_checkpoint

Command = Callable[..., Ran]
CODE = "def fib(n):\n    return None\n"
PYTHON = f"{BASE}-python"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pair")
    store = build(directory / "home", write_checkpoint(directory / "small"))
    add_larger(store, directory / "large")
    return directory / "home"


@pytest.fixture
def pair(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store that commands see: a dense model, and a smaller base's dense, Python and
    Java models, which write the same."""
    monkeypatch.setenv("SUBLLM_THREADS", "1")
    shutil.copytree(home, tmp_path / "subllm-home")
    return Store(tmp_path / "subllm-home")


LARGE = "tiny-coder:2m-dense"
ASK = ["complete", CODE, "-m", LARGE, "-n", "60", "--json"]


@contextmanager
def serving(store: Store, port: int, *options: str) -> Iterator[daemon.Daemon]:
    server = daemon.launch(store.root, "127.0.0.1", port, ["--threads", "1", *options], None)
    try:
        yield server
    finally:
        daemon.stop(server)


def damage(store: Store, name: str) -> None:
    own = store.blobs.path(store.model(name).blobs.own)
    own.chmod(0o644)
    own.write_bytes(b"garbage")


@pytest.mark.parametrize(
    ("options", "draft"),
    [
        ([], PYTHON),
        (["--language", "java"], f"{BASE}-java"),
        (["--set", "speculation=auto"], PYTHON),
        (["--set", f"speculation={BASE}-dense"], f"{BASE}-dense"),
        (["--set", "speculation=ngram"], None),
        (["--set", "speculation=off"], None),
    ],
)
def test_complete_without_a_server(
    options: list[str], draft: str | None, pair: Store, subllm: Command
) -> None:
    plain = subllm(*ASK, "--set", "speculation=off").json
    ran = subllm(*ASK, *options)
    assert (ran.status, ran.err) == (0, "")
    assert (ran.json["text"], ran.json["draft"]) == (plain["text"], draft)
    assert plain["accepted_prediction_tokens"] == plain["rejected_prediction_tokens"] == 0
    assert ran.json["completion_tokens"] == 60


def test_nothing_is_said_unless_asked(pair: Store, subllm: Command) -> None:
    ran = subllm("complete", CODE, "-m", LARGE, "-n", "20")
    assert ran.err.startswith(f"{LARGE} (named): 20 tokens")
    assert ran.err.count("\n") == 1 and "draft" not in ran.err


def test_chat(pair: Store, subllm: Command) -> None:
    ask = ["chat", "Write a loop in Java.", "-m", LARGE, "-n", "30", "--json"]
    ran = subllm(*ask)
    assert ran.json["draft"] == f"{BASE}-java"
    plain = subllm(*ask, "--speculation", "off").json
    assert (plain["text"], plain["draft"]) == (ran.json["text"], None)


def test_a_server_tells_what_drafts(
    pair: Store, free_port: Callable[[], int], subllm: Command
) -> None:
    plain = subllm(*ASK, "--set", "speculation=off").json["text"]
    with serving(pair, free_port(), "--speculation", f"{BASE}-dense"):
        by_setting = subllm(*ASK).json
        assert (by_setting["text"], by_setting["draft"]) == (plain, f"{BASE}-dense")
        assert subllm(*ASK, "--set", "speculation=auto").json["draft"] == PYTHON
        (server,) = subllm("ps", "--json").json
        (model,) = server["loaded"]
        assert (model["draft"], model["draft_failure"]) == (PYTHON, None)
        lines = subllm("ps").out.splitlines()
        assert any(f"drafts: {PYTHON}" in line for line in lines)


def test_a_draft_that_does_not_load(
    pair: Store, free_port: Callable[[], int], subllm: Command
) -> None:
    plain = subllm(*ASK, "--set", "speculation=off").json["text"]
    with serving(pair, port := free_port()):
        damage(pair, PYTHON)  # and with it the others of the base, which share it
        assert subllm(*ASK).json["text"] == plain
        (server,) = subllm("ps", "--json").json
        (model,) = server["loaded"]
        assert model["draft"] is None and model["draft_failure"].startswith(f"{PYTHON}: ")
        assert f"no draft by {PYTHON}: " in subllm("ps").out
    assert f"{PYTHON} does not draft for {LARGE}" in daemon.log_path(pair.root, port).read_text()
    here = subllm(*ASK)
    assert (here.status, here.json["text"]) == (0, plain)
    assert here.err.startswith(f"warning: {PYTHON} does not draft") and here.err.count("\n") == 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("fast", "unknown model 'fast'"),
        (f"{BASE}-pyton", f"did you mean {PYTHON}"),
        (LARGE, f"it is not smaller than {LARGE}"),
    ],
)
@pytest.mark.parametrize("command", ["complete", "chat"])
def test_a_bad_option_is_one_line(
    command: str, value: str, message: str, pair: Store, subllm: Command
) -> None:
    asked = {"complete": ["--set", f"speculation={value}"], "chat": ["--speculation", value]}
    ran = subllm(command, "x", "-m", LARGE, *asked[command])
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("error: speculation: ") and message in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("value", "message"),
    [("fast", "none of its values"), (f"{BASE}-pyton", f"did you mean {PYTHON}")],
)
def test_a_bad_setting_is_one_line(
    value: str, message: str, pair: Store, subllm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = subllm("serve", "--speculation", value)
    monkeypatch.setenv("SUBLLM_SPECULATION", value)
    for ran in (refused, subllm("serve"), subllm("complete", "x")):
        assert (ran.status, ran.out) == (2, "")
        assert message in ran.err and "speculation" in ran.err.lower()
        assert ran.err.count("\n") == 1


def test_route_tells_who_would_draft(
    pair: Store, tmp_path: Path, subllm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "fib.py"
    file.write_text(CODE)
    ran = subllm("route", str(file), "-m", LARGE, "--json")
    assert (ran.json["draft"], ran.json["draft_reason"]) == (PYTHON, "language")
    line = subllm("route", str(file), "-m", LARGE).out.splitlines()[-1]
    assert line.split(maxsplit=1)[0] == "draft" and PYTHON in line
    monkeypatch.setenv("SUBLLM_SPECULATION", "off")
    assert subllm("route", str(file), "-m", LARGE, "--json").json["draft"] is None
