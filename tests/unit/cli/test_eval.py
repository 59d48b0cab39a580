"""`subllm eval` from end to end: a tiny model, real programs, a real sandbox.

The tiny model writes printable characters and never a line end. So where a problem's prompt
ends in a comment, every completion is a comment, and the problem passes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from subllm.models.store.collect import remove
from subllm.models.store.store import Store

from .samples import Ran
from .tiny_store import BASE

Command = Callable[..., Ran]
MODEL = f"{BASE}-python"
SMALL = ("--set", "max_tokens=12")


def problem(number: int, *, passes: bool, solution: str = "") -> dict[str, Any]:
    return {
        "task_id": f"HumanEval/{number}",
        "prompt": f"# {number}\ndef add(a, b):\n" + ("    return a + b #" if passes else ""),
        "entry_point": "add",
        "canonical_solution": solution or ("\n" if passes else "    return a + b\n"),
        "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
    }


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three problems: one that passes, one that fails, one whose own solution fails."""
    return write(
        tmp_path / "problems.jsonl",
        problem(0, passes=True),
        problem(1, passes=False),
        problem(2, passes=False, solution="    return a - b\n"),
    )


def lines(path: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().split("\n")[:-1]]


def only(ran: Ran) -> dict[str, Any]:
    assert ran.status == 0, ran.err
    (result,) = ran.json["results"]
    return result


def test_counts_records_and_machine(tiny: Store, subllm: Command, data: Path) -> None:
    ran = subllm("eval", MODEL, "--task", "humaneval", "--data", str(data), "--json", *SMALL)
    result = only(ran)
    figures = result["figures"]
    assert figures["problems"] == 3
    (one,) = figures["pass"]
    assert (one["k"], one["value"]) == (1, pytest.approx(1 / 3))
    assert one["low"] <= 1 / 3 <= one["high"]
    assert figures["status"]["passed"] == 1
    assert sum(figures["status"].values()) == 3
    assert figures["canonical"] == {
        "run": 3,
        "passed": 2,
        "failing": ["HumanEval/2"],
        "without": [],
    }
    assert figures["tokens"] > 0
    assert result["model"]["digest"] == tiny.resolve(MODEL)
    assert (result["prompt"], result["sampling"]["temperature"]) == ("raw", 0)
    assert result["tools"]["backend"] == "native"
    assert "Python 3" in result["tools"]["toolchain"]
    assert result["machine"]["cpu"]
    records = lines(result["records"])
    assert Path(result["records"]).is_relative_to(tiny.root / "evaluations")
    kinds = [row["kind"] for row in records]
    assert kinds == ["run", *["canonical"] * 3, *["sample"] * 3, "summary"]
    assert records[0]["data"]["digest"] == result["data"]["digest"]
    passed = next(row for row in records if row.get("status") == "passed" and "program" in row)
    assert passed["problem"] == "HumanEval/0"
    assert passed["program"].startswith("# 0\ndef add(a, b):\n    return a + b #" + passed["raw"])
    assert passed["tokens"] == 12
    assert "sandbox: " in ran.err


def test_builtin_problems_are_asked_of_the_dense_base_too(tiny: Store, subllm: Command) -> None:
    arguments = ("eval", MODEL, "--task", "builtin", "--language", "python", "--limit", "2")
    figures = only(subllm(*arguments, "--json", *SMALL))["figures"]
    assert (figures["problems"], figures["canonical"]["passed"]) == (2, 2)
    assert figures["retention"]["dense"] == f"{BASE}-dense"
    ran = subllm(*arguments, *SMALL)
    assert "RETENTION" in ran.out and "built in" in ran.out
    dense = ("eval", f"{BASE}-dense", *arguments[2:], "--json", *SMALL)
    assert "retention" not in only(subllm(*dense))["figures"]


def test_a_finished_run_is_not_made_again(tiny: Store, subllm: Command, data: Path) -> None:
    arguments = ("eval", MODEL, "--task", str(data), "--json", *SMALL)
    first = only(subllm(*arguments))
    before = Path(first["records"]).read_bytes()
    second = only(subllm(*arguments))
    assert second["figures"] == first["figures"]
    assert Path(first["records"]).read_bytes() == before


def test_more_problems_and_samples_go_into_the_same_file(
    tiny: Store, subllm: Command, data: Path
) -> None:
    arguments = ("eval", MODEL, "--task", str(data), "--json", "--temperature", "1", *SMALL)
    first = only(subllm(*arguments, "--limit", "1"))
    assert first["figures"]["pass"][0]["value"] == 1.0
    samples = ("--samples", "2", "--k", "1,2")
    second = only(subllm(*arguments, *samples))
    assert second["records"] == first["records"]
    assert second["figures"]["new_samples"] == 5
    assert [entry["k"] for entry in second["figures"]["pass"]] == [1, 2]
    assert second["figures"]["pass"][1]["value"] == pytest.approx(1 / 3)
    made = [(r["problem"], r["index"]) for r in lines(second["records"]) if r["kind"] == "sample"]
    assert sorted(made) == [(f"HumanEval/{n}", i) for n in range(3) for i in range(2)]
    # The first one again, now that the file holds more.
    third = only(subllm(*arguments, "--limit", "1"))
    assert third["figures"] == first["figures"]


def test_the_seed_alone_decides_what_is_sampled(
    tiny: Store, subllm: Command, data: Path, tmp_path: Path
) -> None:
    def raws(out: str, seed: str, batch: str) -> dict[tuple[str, int], str]:
        options: tuple[str, ...] = (
            "--samples",
            "2",
            "--set",
            f"seed={seed}",
            "--set",
            f"batch={batch}",
        )
        options += ("--out", str(tmp_path / out))
        result = only(subllm("eval", MODEL, "--task", str(data), "--json", *options, *SMALL))
        assert result["sampling"]["temperature"] == 0.8
        rows = [row for row in lines(result["records"]) if row["kind"] == "sample"]
        return {(row["problem"], row["index"]): row["raw"] for row in rows}

    one = raws("a", "3", "8")
    assert one == raws("b", "3", "1")
    assert len(set(one.values())) > 3
    assert one != raws("c", "4", "8")


@pytest.mark.parametrize(
    "how", [pytest.param(signal.SIGKILL, marks=pytest.mark.long), signal.SIGINT]
)
def test_goes_on_after_being_stopped(
    how: signal.Signals, tiny: Store, subllm: Command, tmp_path: Path
) -> None:
    slow = "import time\n\ndef check(candidate):\n    time.sleep(0.1)\n"
    rows = [{**problem(n, passes=True), "test": slow} for n in range(40)]
    many = write(tmp_path / "many.jsonl", *rows)
    arguments = ["eval", MODEL, "--task", str(many), "--set", "batch=1", "--json", *SMALL]
    environment = {**os.environ, "SUBLLM_HOME": str(tiny.root), "SUBLLM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "subllm", *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        until = time.monotonic() + 400
        found: list[Path] = []
        while not (found and found[0].read_bytes().count(b'"kind":"sample"') >= 3):
            assert time.monotonic() < until
            assert process.poll() is None, process.stderr and process.stderr.read()
            found = list((tiny.root / "evaluations").glob("humaneval-*.jsonl"))
            time.sleep(0.005)
        process.send_signal(how)
        process.wait(240)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL)
    before = [row for row in lines(found[0]) if row["kind"] == "sample"]
    assert 3 <= len(before) < 40
    ran = subllm(*arguments)
    result = only(ran)
    after = [row for row in lines(result["records"]) if row["kind"] == "sample"]
    assert after[: len(before)] == before
    assert result["figures"]["new_samples"] == 40 - len(before)
    assert f"{len(before)} of 40 samples are there already" in ran.err
    assert {row["problem"] for row in after} == {f"HumanEval/{n}" for n in range(40)}
    assert len(after) == 40


def test_table(tiny: Store, subllm: Command, data: Path) -> None:
    ran = subllm("eval", MODEL, "--task", "humaneval", "--data", str(data), *SMALL)
    assert ran.status == 0, ran.err
    table = [line.rstrip() for line in ran.out.splitlines()]
    table = table[table.index("") + 1 :]
    assert table[0].split() == ["LANGUAGE", "PASS@1", "CANONICAL", "TOKENS", "EACH", "TIME"]
    assert table[1].split()[:2] == ["python", "33.3"]
    assert "2/3" in table[1].split()
    assert max(map(len, table)) <= 80
    assert "1 canonical solution fails, which counts against the model: HumanEval/2" in ran.err


def test_infilling(tiny: Store, subllm: Command, tmp_path: Path) -> None:
    row = {
        "task_id": "SingleLineInfilling/HumanEval/0/L0",
        "entry_point": "add",
        "prompt": "def add(a, b):\n    total = a + b #",
        "suffix": "\n    return total\n",
        "canonical_solution": "the sum",
        "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
    }
    data = write(tmp_path / "holes.jsonl", row)
    result = only(
        subllm("eval", MODEL, "--task", "infilling", "--data", str(data), "--json", *SMALL)
    )
    assert result["prompt"] == "fim"
    assert result["figures"]["pass"][0]["value"] == 1.0
    assert result["figures"]["exact_match"] == 0.0


def test_chat(tiny: Store, subllm: Command, data: Path) -> None:
    arguments = ("eval", MODEL, "--task", str(data), "--limit", "1", "--json", *SMALL)
    chat = only(subllm(*arguments, "--set", "prompt=auto"))
    assert chat["prompt"] == "chat"
    assert chat["records"] != only(subllm(*arguments))["records"]


def test_perplexity_and_agreement(tiny: Store, subllm: Command, tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text(json.dumps({"text": "some text to measure on, " * 120}) + "\n")
    options = ("--data", str(own), "--limit", "2", "--json")
    result = only(subllm("eval", MODEL, "--task", "perplexity", *options))
    assert result["figures"]["perplexity"] > 1
    assert result["figures"]["tokens"] == 2 * 511
    # The sub-model of the tiny store is its dense base under another name.
    result = only(subllm("eval", MODEL, "--task", "agreement", *options))
    assert result["figures"]["dense"] == f"{BASE}-dense"
    assert result["figures"]["agreement"] > 0.95
    ran = subllm("eval", MODEL, "--task", "agreement", *options[:-1])
    assert ran.out.splitlines()[-1].split()[0] == "python"


def test_no_dense_base_to_agree_with(tiny: Store, subllm: Command) -> None:
    remove(tiny, f"{BASE}-dense")
    ran = subllm("eval", MODEL, "--task", "agreement")
    assert (ran.status, ran.out) == (2, "")
    assert f"run 'subllm add {BASE}'" in ran.err


def test_nothing_counts_when_no_solution_passes(
    tiny: Store, subllm: Command, tmp_path: Path
) -> None:
    data = write(tmp_path / "a.jsonl", problem(0, passes=False, solution="    return 0\n"))
    ran = subllm("eval", MODEL, "--task", str(data), "--json")
    assert (ran.status, ran.out) == (9, "")
    assert "none of the 1 canonical solutions passes" in ran.err


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--task", "humanevl"], 2, "did you mean humaneval"),
        (["--task", "humaneval", "--language", "pyton"], 2, "did you mean python"),
        (["--task", "humaneval", "--language", "java"], 2, "humaneval has no java problems"),
        (["--task", "DATA", "--k", "1,x"], 2, "key 'k.1'"),
        (["--task", "DATA", "--k", "10", "--samples", "5"], 2, "raise --samples"),
        (["--task", "DATA", "--samples", "5", "--temperature", "0"], 2, "all the same"),
        (["--task", "DATA", "--set", "prompt=html"], 2, "'raw', 'chat' or 'auto'"),
        (["--task", "DATA", "--set", "max_tokens=4000"], 7, "takes 1 to 1024"),
        (["--task", "mbpp", "--data", "DATA"], 2, "use --task humaneval"),
        (["--task", "DATA", "--set", "sed=1"], 2, "did you mean seed"),
        (["--task", "DATA", "--format", "chat"], 2, "moved into --set: --set prompt=chat"),
        ([], 2, "Missing option '--task'"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str], status: int, message: str, tiny: Store, subllm: Command, data: Path
) -> None:
    ran = subllm("eval", MODEL, *(str(data) if word == "DATA" else word for word in arguments))
    assert (ran.status, ran.out) == (status, "")
    assert message in ran.err
    assert "Traceback" not in ran.err


def test_a_base_is_no_model(tiny: Store, subllm: Command) -> None:
    ran = subllm("eval", BASE, "--task", "perplexity")
    assert ran.status == 2
    assert f"'subllm add {BASE}' makes one of it" in ran.err
