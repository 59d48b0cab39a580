"""Evaluation on the real 0.5B: programs that it writes, compiled and run by real tool chains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import BASE, SAMPLES, Machine, Run

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(1500)]

PROBLEMS = Path(__file__).with_name("problems.jsonl")
DENSE = f"{BASE}-dense"


def test_easy_problems_are_solved_in_every_language(
    machine: Machine, tour: list[Run], tmp_path: Path
) -> None:
    rows = PROBLEMS.read_text().splitlines()
    files = []
    for prefix in ("Python", "JavaScript", "CPP", "Java"):
        path = tmp_path / f"{prefix}.jsonl"
        own = [row for row in rows if json.loads(row)["task_id"].startswith(f"{prefix}/")]
        path.write_text("\n".join(own) + "\n")
        files += ["--data", str(path)]
    command = ["eval", DENSE, "--task", "humaneval-x", "--language", "all", *files]
    first = machine.ok(*command, "--out", str(tmp_path / "records"), "--json").document
    assert [result["language"] for result in first["results"]] == [
        "python",
        "java",
        "cpp",
        "javascript",
    ]
    for result in first["results"]:
        figures = result["figures"]
        assert figures["canonical"]["passed"] == figures["canonical"]["run"] > 0
        assert figures["pass"][0]["value"] == 1.0, result["records"]
        samples = [
            line
            for line in map(json.loads, Path(result["records"]).read_text().splitlines())
            if line["kind"] == "sample"
        ]
        assert all("add" in line["program"] or "ven" in line["program"] for line in samples)

    sizes = {path: path.stat().st_size for path in (tmp_path / "records").iterdir()}
    again = machine.ok(*command, "--out", str(tmp_path / "records"), "--json").document
    assert [result["figures"]["pass"] for result in again["results"]] == [
        result["figures"]["pass"] for result in first["results"]
    ]
    assert {path: path.stat().st_size for path in (tmp_path / "records").iterdir()} == sizes


def test_study_compares_the_sub_model_with_its_dense_base(
    machine: Machine, tour: list[Run], tmp_path: Path
) -> None:
    out = tmp_path / "study"
    run = machine.ok(
        *(
            "study",
            "--set",
            f"base={BASE}",
            "--set",
            "calibration=python",
            "--set",
            f"sequences={SAMPLES}",
        ),
        *("--set", "language=python"),
        *("--set", "tasks=humaneval-x,perplexity", "--set", f"data=humaneval-x={PROBLEMS}"),
        *("--out", str(out), "--records", str(tmp_path / "records"), "--json"),
    )
    assert run.document["cells"], run.out
    page = (out / "study.md").read_text()
    assert "Table IV" in page and "dense" in page
    assert (out / "table4.png").stat().st_size > 10_000


def test_masks_of_languages_are_compared(languages: Machine, tmp_path: Path) -> None:
    run = languages.ok("compare", f"{BASE}-java", f"{BASE}-cpp", "--out", str(tmp_path), "--json")
    (pair,) = run.document["pairs"]
    assert 0.01 < pair["distance"] < pair["distance_of_independent_masks"] / 2
    assert set(pair["by_type"]) == {"q", "k", "v", "o", "gate", "up", "down"}
    assert (tmp_path / "masks-types.png").stat().st_size > 10_000
    assert "treescope" in (tmp_path / "overlay.html").read_text().lower()
