"""The built-in problems at the end of `subllm extract` and `subllm recover`: a tiny base that
recovers for one step, real programs, a real sandbox."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from subllm.cli.app import run
from subllm.errors import ToolchainMissingError
from subllm.measuring.evaluation.bench import Bench
from subllm.measuring.evaluation.kept import Asking
from subllm.measuring.evaluation.measures.dense import any_dense_of
from subllm.models.store.collect import remove
from subllm.models.store.store import Store

from .samples import Ran, with_recipe
from .tiny_store import BASE

Command = Callable[..., Ran]
NAME, DENSE = f"{BASE}-python", f"{BASE}-dense"
RECOVERED = ("--recover", "2048tok")


pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture
def where(code: str) -> list[str]:
    given = ["--calibration", code, "calibration.samples=4", "calibration.seq_len=64"]
    return ["python", "--base", BASE, *given]


def records(store: Store) -> dict[str, bytes]:
    directory = store.root / "evaluations"
    return {path.name: path.read_bytes() for path in directory.glob("builtin-*.jsonl")}


def of_dense(store: Store) -> bytes:
    (one,) = (data for name, data in records(store).items() if "1m-dense-" in name)
    return one


def test_told_after_recovery_and_the_dense_base_asked_once(
    tiny: Store, where: list[str], subllm: Command
) -> None:
    ran = subllm("extract", *where, *RECOVERED)
    assert ran.status == 0, ran.err
    assert f"2 small python problems for {NAME} and {DENSE}, at most about " in ran.err
    assert "sandbox: " not in ran.err
    facts = dict(line.split("  ", 1) for line in ran.out.splitlines())
    assert facts["python problems"].strip() == "0 of 2 solved, dense 0"
    dense = of_dense(tiny)

    again = subllm("extract", *where, *RECOVERED, "--json").json
    assert again["cached"] and again["problems"] == {
        "language": "python",
        "asked": 2,
        "solved": 0,
        "dense": DENSE,
        "dense_solved": 0,
        "records": again["problems"]["records"],
        "kept": None,
    }
    assert Path(again["problems"]["records"]).read_bytes() in records(tiny).values()

    went = subllm("recover", NAME, "--for", "4096tok", "--json")
    assert went.status == 0, went.err
    assert (went.json["problems"]["asked"], went.json["problems"]["dense"]) == (2, DENSE)
    assert of_dense(tiny) == dense


def test_left_out_where_not_asked_for(tiny: Store, where: list[str], subllm: Command) -> None:
    for options in ((), ("--fast",), (*RECOVERED, "report.problems=false")):
        arguments = where if options != ("--fast",) else where[:5]
        ran = subllm("extract", *arguments, *options, "--json")
        assert ran.status == 0, ran.err
        assert ran.json["problems"] is None
    went = subllm("recover", NAME, "--for", "4096tok", "report.problems=false", "--json")
    assert went.json["problems"] is None
    assert records(tiny) == {}


def test_without_a_dense_base_it_says_how_to_get_one(
    tiny: Store, where: list[str], subllm: Command
) -> None:
    remove(tiny, DENSE)
    ran = subllm("extract", *where, *RECOVERED)
    assert ran.status == 0, ran.err
    assert f"0 of 2 solved; how many the dense base solves is not known: 'subllm add {BASE}'" in (
        ran.out
    )
    went = subllm("extract", *where, *RECOVERED, "--json").json["problems"]
    assert (went["dense"], went["dense_solved"], went["kept"]) == (None, None, None)


def test_any_dense_model_of_the_same_base_will_do(tiny: Store, tmp_path: Path) -> None:
    assert any_dense_of(tiny, NAME) == DENSE
    assert any_dense_of(tiny, DENSE) is None
    other = f"{DENSE}-other"
    tiny.set_ref(other, tiny.put_manifest(tiny.model(DENSE).model_copy(update={"name": other})))
    assert any_dense_of(tiny, NAME) == DENSE
    remove(tiny, DENSE)
    assert any_dense_of(tiny, NAME) == other
    strange = tiny.model(other).model_copy(
        update={
            "base": tiny.model(other).base.model_copy(update={"manifest": "sha256-" + "0" * 64})
        }
    )
    tiny.set_ref(other, tiny.put_manifest(strange))
    assert any_dense_of(tiny, NAME) is None


def test_too_slow_a_machine_is_told_and_not_kept_waiting(
    tiny: Store, where: list[str], subllm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subllm.measuring.evaluation.kept.read_bandwidth", lambda _: 1.0)
    ran = subllm("extract", *where, *RECOVERED, "--json")
    assert ran.status == 0, ran.err
    assert ran.json["problems"] is None
    assert "python problems left out, they take about" in ran.err
    assert f"'subllm eval {NAME} --task builtin' asks them" in ran.err
    assert records(tiny) == {}


def test_a_missing_interpreter_costs_the_problems_only(
    tiny: Store, where: list[str], subllm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(self: Bench, language: str) -> Any:
        raise ToolchainMissingError(f"there is no {language} here; install it")

    monkeypatch.setattr(Bench, "toolchain", missing)
    ran = subllm("extract", *where, *RECOVERED, "--json")
    assert ran.status == 0, ran.err
    assert ran.json["problems"] is None
    assert "python problems left out: there is no python here; install it" in ran.err


@pytest.mark.parametrize("command", [pytest.param("extract", marks=pytest.mark.long), "recover"])
def test_ctrl_c_leaves_the_problems_out_and_tells_the_rest(
    command: str,
    tiny: Store,
    where: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    arguments = ["extract", *where, *RECOVERED]
    if command == "recover":
        assert run(with_recipe(tmp_path, *arguments, "report.problems=false")) == 0
        arguments = ["recover", NAME, "--for", "4096tok"]
    capsys.readouterr()

    def pressed(self: Asking, bench: Bench) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Asking, "run", pressed)
        assert run(with_recipe(tmp_path, *arguments, "--json")) == 130
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["problems"] is None
    assert tiny.resolve(NAME) == document["digest"]
    assert f"{NAME} is stored, 'subllm eval {NAME} --task builtin' goes on" in captured.err
    if command == "extract":  # the same command asks them after all
        assert run(with_recipe(tmp_path, *arguments, "--json")) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["cached"] and document["problems"]["asked"] == 2
