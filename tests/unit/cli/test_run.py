"""`subllm run`: chat, with what is missing made first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from subllm.cli import run
from subllm.cli.context import open_context
from subllm.models.store.store import Store

from .samples import Ran
from .tiny_store import BASE

Command = Callable[..., Ran]
USUAL = "qwen2.5-coder:0.5b"


def test_what_is_here_is_asked(tiny: Store, subllm: Command) -> None:
    for name, answers in (
        (f"{BASE}-java", f"{BASE}-java"),
        ("python", f"{BASE}-python"),
        ("Python", f"{BASE}-python"),
        ("auto", f"{BASE}-dense"),
    ):
        ran = subllm("run", name, "say something", "-n", "3", "--json")
        assert (ran.status, ran.err) == (0, ""), ran.err
        assert ran.json["model"] == answers
        assert ran.json["completion_tokens"] == 3


@pytest.mark.parametrize(
    ("name", "model", "step"),
    [
        ("ruby2", None, None),
        ("python", f"{USUAL}-python", ("extract", "python", "--base", USUAL, "--fast")),
        ("c++", f"{USUAL}-cpp", ("extract", "cpp", "--base", USUAL, "--fast")),
        (f"{USUAL}-java", f"{USUAL}-java", ("extract", "java", "--base", USUAL, "--fast")),
        (
            f"{USUAL}-java-x",
            f"{USUAL}-java-x",
            ("extract", "java", "--base", USUAL, "--fast", "--tag", "x"),
        ),
        (USUAL, f"{USUAL}-dense", ("add", USUAL)),
        (f"{USUAL}-dense", f"{USUAL}-dense", ("add", USUAL)),
        ("none:1b", None, None),
    ],
)
def test_what_is_missing_is_planned(
    name: str, model: str | None, step: tuple[str, ...] | None, tmp_path: Path, subllm: Command
) -> None:
    if model is None:
        ran = subllm("run", name, "x")
        assert (ran.status, ran.out) == (2, "")
        assert ran.err.startswith("error: unknown ")
        return
    wanted = run.plan(open_context(), name)
    assert (wanted.name, wanted.steps) == (model, (step,))
    assert wanted.why.startswith(f"{model if ':' not in name else name} is not here: this will")
    assert f"fetch {USUAL}" in wanted.why
    assert ("--fast" in wanted.why) is (step is not None and step[0] == "extract")


def test_it_is_said_made_and_asked(
    tiny: Store, subllm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dense model of a base that has none, with nothing but the answer on stdout."""
    from subllm.models.store.collect import remove

    for language in ("dense", "python", "java"):
        remove(tiny, f"{BASE}-{language}")
    ran = subllm("run", BASE, "say something", "-n", "3", "--json")
    assert ran.status == 0, ran.err
    assert ran.json["model"] == f"{BASE}-dense"
    said = ran.err.splitlines()
    assert said[0] == (
        f"{BASE} is not here: this will make it servable as it is, unpruned; Ctrl-C stops."
    )
    assert f"{BASE}-dense" in tiny.names()
    assert any(line.startswith("name ") for line in said)


def test_a_failure_is_its_own(
    tmp_path: Path, subllm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUBLLM_OFFLINE", "1")
    ran = subllm("run", "python", "x")
    assert (ran.status, ran.out) == (3, "")
    first, second = ran.err.splitlines()
    assert "is not here" in first
    assert second.startswith("error: ")
