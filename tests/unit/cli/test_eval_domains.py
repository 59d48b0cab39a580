"""`subllm eval` on the tasks of the domains, with a tiny model and local rows."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from oracles.domain_rows import rows_of

from subllm.measuring.evaluation.domains import DOMAIN_TASKS, tasks_of
from subllm.models.store.store import Store

from .samples import Ran
from .tiny_store import BASE

Command = Callable[..., Ran]
MODEL = f"{BASE}-python"


def write(path: Path, task: str, count: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows_of(task, count)))
    return path


def results_of(ran: Ran) -> list[dict[str, Any]]:
    assert ran.status == 0, ran.err
    return ran.json["results"]


def test_one_task(tiny: Store, subllm: Command, tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", "arc_easy", 8)
    command = ("eval", MODEL, "--task", "arc_easy", "--data", str(data), "--limit", "6")
    (result,) = results_of(subllm(*command, "--json"))
    assert (result["task"], result["language"], result["data"]["rows"]) == ("arc_easy", "csr", 8)
    assert result["figures"]["questions"] == 6
    assert result["tools"]["backend"] == "native"
    lines = Path(result["records"]).read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["run", *["question"] * 6, "summary"]
    table = subllm(*command)
    score = f"{result['figures']['score'] * 100:.1f} ("
    assert table.status == 0, table.err
    row = table.out.splitlines()[-1]
    assert row.startswith("arc_easy") and " acc " in row and score in row
    assert max(map(len, table.out.splitlines()[-2:])) <= 80


def test_a_whole_domain_and_its_mean(tiny: Store, subllm: Command, tmp_path: Path) -> None:
    for task in tasks_of("csr"):
        write(tmp_path / task / f"{DOMAIN_TASKS[task].split}.jsonl", task)
    command = ("eval", MODEL, "--task", "csr", "--data", str(tmp_path))
    results = results_of(subllm(*command, "--json"))
    assert [result["task"] for result in results] == list(tasks_of("csr"))
    mean = sum(result["figures"]["score"] for result in results) / 6
    lines = subllm(*command).out.splitlines()
    assert lines[-1].split() == ["mean", f"{mean * 100:.1f}"]
    assert lines[1].startswith("task") and "openbookqa, winogrande, boolq" in lines[1]


def test_translation_says_how_it_was_scored(tiny: Store, subllm: Command, tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", "wmt14", 2)
    ran = subllm("eval", MODEL, "--task", "wmt14", "--data", str(data))
    assert ran.status == 0, ran.err
    assert "temperature 0.7, top-p 1, seed 0, 256 tokens" in ran.out
    if "METEOR (exact + stem)" in ran.out:
        assert "run 'python -m nltk.downloader wordnet'" in ran.err


def test_what_is_missing_is_said(
    tiny: Store, subllm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = subllm("eval", MODEL, "--task", "boolq", "--data", str(tmp_path / "none.jsonl"))
    assert (ran.status, ran.out) == (2, "")
    assert "correct --data" in ran.err
    ran = subllm("eval", MODEL, "--task", "hellaswagg")
    assert ran.status == 2
    assert "did you mean hellaswag?" in ran.err
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    ran = subllm("eval", MODEL, "--task", "boolq", "--data", str(tmp_path))
    assert ran.status == 2
    assert "pip install 'subllm[eval]'" in ran.err


def test_help_names_the_domains(subllm: Command) -> None:
    out = " ".join(subllm("eval", "--help").out.split())
    for word in ("csr", "translation", "gsm8k", "subllm[eval]"):
        assert word in out
