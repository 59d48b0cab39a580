"""Bases that come without a name: files, directories and repositories of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import pytest
from fakes.hub import FakeHub
from oracles.tiny_ggufs import byte_tokenizer, write_gguf

from subllm.models.store.store import Store

from .samples import Ran
from .tiny_store import write_checkpoint

Command = Callable[..., Ran]


@pytest.fixture
def code(tmp_path: Path) -> str:
    directory = tmp_path / "code"
    directory.mkdir()
    for number in range(24):
        text = "".join(f"def f_{number}_{i}(x):\n    return x * {i}\n\n" for i in range(20))
        (directory / f"m{number}.py").write_text(text)
    return str(directory)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Where commands put what they make; empty."""
    monkeypatch.setenv("SUBLLM_THREADS", "1")
    return Store(tmp_path / "subllm-home")


@pytest.fixture(params=["directory", "file", "repository"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A base as README lists them, and the name that it should get."""
    if request.param == "directory":
        yield str(write_checkpoint(tmp_path / "My-Coder-2M-Instruct")), "my-coder:2m"
    elif request.param == "file":

        def said(writer: gguf.GGUFWriter) -> None:
            writer.add_string("general.basename", "File-Coder")
            writer.add_string("general.size_label", "3M")
            byte_tokenizer(writer)

        write_gguf(tmp_path / "some.Q8_0.gguf", "qwen2", extra=said)
        yield str(tmp_path / "some.Q8_0.gguf"), "file-coder:3m"
    else:
        hub: FakeHub = request.getfixturevalue("hub")
        files = write_checkpoint(tmp_path / "pushed").iterdir()
        hub.add_repo("org/Hub-Coder-4M", {path.name: path.read_bytes() for path in files})
        yield "hf:org/Hub-Coder-4M", "hub-coder:4m"


def test_extract_brings_it(base: tuple[str, str], home: Store, code: str, subllm: Command) -> None:
    given, name = base
    options = [
        "--base",
        given,
        "--calibration",
        code,
        "calibration.samples=2",
        "calibration.seq_len=64",
    ]
    ran = subllm("extract", "python", "prune.method='magnitude'", "prune.pattern='2:4'", *options)
    assert ran.status == 0, ran.err
    assert f"{given} is {name} here; --base-name chooses another name" in ran.err.splitlines()
    assert set(home.names()) == {name, f"{name}-python"}
    again = subllm("extract", "python", "prune.method='magnitude'", "prune.pattern='2:4'", *options)
    assert "taken from the store" in again.err
    assert "in the store already" in again.err
    assert subllm("complete", "def f(", "-m", f"{name}-python", "-n", "2").status == 0


def test_add_brings_it(base: tuple[str, str], home: Store, subllm: Command) -> None:
    given, name = base
    ran = subllm("add", given, "--json")
    assert (ran.status, ran.json["name"]) == (0, f"{name}-dense")
    assert subllm("add", given, "--json").json["cached"] is True
    assert subllm("add", given, "--base-name", "mine:1b", "--json").json["name"] == "mine:1b-dense"
    assert set(home.names()) == {name, f"{name}-dense", "mine:1b", "mine:1b-dense"}


def test_pull_brings_it(base: tuple[str, str], home: Store, subllm: Command) -> None:
    given, name = base
    assert subllm("pull", given, "--json").json["name"] == name
    for option in ("--name", "--base-name"):
        assert subllm("pull", given, option, "mine:1b", "--json").json["name"] == "mine:1b"


def test_a_taken_name_is_told_with_the_way_out(
    home: Store, code: str, tmp_path: Path, subllm: Command
) -> None:
    first = write_checkpoint(tmp_path / "first" / "coder-2m")
    second = write_checkpoint(tmp_path / "second" / "coder-2m", seed=1)
    assert subllm("add", str(first)).status == 0
    for command in (["add", str(second)], ["extract", "python", "--base", str(second)]):
        refused = subllm(*command)
        assert (refused.status, refused.out) == (2, "")
        assert refused.err.splitlines()[-1] == (
            f"error: {second} would be coder:2m, which is taken by path:{first}; "
            "name it with --base-name FAMILY:SIZE"
        )
    assert subllm("add", str(second), "--base-name", "second:2m").status == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine", "'mine' is not a well-formed name; write family:size"),
        ("mine:1b-python", "names a model, not a base"),
        ("../mine:1b", "is not a well-formed name"),
    ],
)
def test_a_bad_name(name: str, message: str, home: Store, tmp_path: Path, subllm: Command) -> None:
    path = write_checkpoint(tmp_path / "coder-2m")
    ran = subllm("add", str(path), "--base-name", name)
    assert (ran.status, ran.out) == (2, "")
    assert message in ran.err
    assert home.names() == {}


def test_a_name_is_not_renamed(home: Store, tmp_path: Path, subllm: Command) -> None:
    assert subllm("pull", str(write_checkpoint(tmp_path / "coder-2m"))).status == 0
    ran = subllm("add", "coder:2m", "--base-name", "other:2m")
    assert (ran.status, ran.out) == (2, "")
    assert "coder:2m is a name already; leave --base-name out" in ran.err
    assert subllm("add", "coder:2m", "--base-name", "coder:2m").status == 0
