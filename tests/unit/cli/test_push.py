"""`subllm push`, and `subllm pull` of what it pushed: what they print, and how they exit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.hub import GOOD_TOKEN, FakeHub
from huggingface_hub import constants

from subllm.models.store.store import Store

from .samples import Ran
from .test_pull import failed
from .tiny_store import BASE

Command = Callable[..., Ran]
PYTHON, JAVA = f"{BASE}-python", f"{BASE}-java"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Store]:
    """Commands see another store, which is empty, from when it is called."""

    def go() -> Store:
        monkeypatch.setenv("SUBLLM_HOME", str(tmp_path / "elsewhere"))
        return Store(tmp_path / "elsewhere")

    return go


def test_by_a_directory(
    subllm: Command, tiny: Store, tmp_path: Path, elsewhere: Callable[[], Store]
) -> None:
    where = str(tmp_path / "team")
    ran = subllm("push", PYTHON, where)
    assert ran.status == 0, ran.err
    names = [line.split()[0] for line in ran.out.splitlines()]
    assert names == ["pushed", "to", "sent"]
    assert ran.err.splitlines()[-1] == f"fetched by: subllm pull {where}"
    again = subllm("push", PYTHON, JAVA, where, "--json").json
    assert (again["models"], again["sent_bytes"]) == ([PYTHON, JAVA], 0)
    assert again["present_bytes"] > 0
    store = elsewhere()
    ran = subllm("pull", where, "--only", PYTHON)
    assert ran.status == 0, ran.err
    assert ran.out.splitlines()[0] == f"name               {PYTHON}"
    assert f"source   path:{where}" in ran.out
    assert list(store.names()) == [PYTHON]
    asked = subllm("complete", "--model", PYTHON, "--max-tokens", "4", "ab")
    assert asked.status == 0, asked.err
    assert f"pulled              from path:{where}" in subllm("show", PYTHON).out
    second = subllm("pull", where, "--json").json
    assert second["fetched_bytes"] == 0
    assert [model["name"] for model in second["models"]] == [JAVA, PYTHON]
    assert "holds packed models, not a base" in failed(subllm("add", where), 3)


def test_by_the_hub(
    subllm: Command,
    tiny: Store,
    hub: FakeHub,
    elsewhere: Callable[[], Store],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    assert "set HF_TOKEN" in failed(subllm("push", PYTHON, "hf:org/coder"), 3)
    monkeypatch.setenv("HF_TOKEN", GOOD_TOKEN)
    ran = subllm("push", PYTHON, "hf:org/coder")
    assert ran.status == 0, ran.err
    assert f"to      {hub.url}/org/coder" in ran.out
    store = elsewhere()
    theirs = f"{PYTHON}-theirs"
    assert subllm("pull", "hf:org/coder", "--name", theirs).status == 0
    assert list(store.names()) == [theirs]
    assert subllm("pull", "hf:org/tiny", "--name", "own:1m").status == 0  # a base, as ever
    monkeypatch.setenv("SUBLLM_OFFLINE", "1")
    assert "SUBLLM_OFFLINE" in failed(subllm("push", theirs, "hf:org/coder"), 3)


def test_errors_are_one_line(subllm: Command, tiny: Store, tmp_path: Path) -> None:
    assert "See 'subllm push --help'" in subllm("push", PYTHON).err
    assert "unknown" in failed(subllm("push", f"{BASE}-pyton", str(tmp_path / "a")), 2)
    assert "no file or directory" in failed(subllm("pull", "gone.subllm", "--replace"), 2)
    (tmp_path / "bad.subllm").write_bytes(b"subllm.json\0" + b"x" * 2000)
    assert "damaged" in failed(subllm("pull", str(tmp_path / "bad.subllm")), 3)


def test_help_teaches(subllm: Command) -> None:
    text = " ".join(subllm("push", "--help").out.split())
    for words in ("hf:org/name", ".subllm", "--public", "HF_TOKEN", "hf auth login", "licence"):
        assert words in text
    assert all(len(line) <= 80 for line in subllm("push", "--help").out.splitlines())
