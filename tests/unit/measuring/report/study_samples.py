"""Cells of studies, made by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from subllm.measuring.report.study.records import (
    Cell,
    CellSampling,
    Command,
    Data,
    Model,
    Score,
    Study,
)

BASE = "tiny:1m"
GREEDY = CellSampling(prompt="raw", temperature=0.0, top_p=1.0, max_tokens=512, seed=0)
SAMPLED = GREEDY.model_copy(update={"temperature": 0.8})
COMMAND = Command(
    command="subllm study --out study",
    created="2026-01-02T03:04:05+00:00",
    machine={"cpu": "a CPU", "threads": 2, "subllm": "0.1.0"},
)


def model(language: str, **changes: Any) -> Model:
    """A sub-model of 8:16, or the dense one."""
    dense = language == "dense"
    facts: dict[str, Any] = {
        "name": f"{BASE}-{language}",
        "digest": f"sha256-{language}",
        "language": language,
        "base": BASE,
        "base_digest": "sha256-base",
        "base_source": "path:tiny",
        "method": "none" if dense else "wanda",
        "pattern": "dense" if dense else "8:16",
        "values": "int8",
        "head": "int8",
        "density": 1.0 if dense else 0.5,
    }
    if not dense:
        facts |= {
            "calibration": f"pack:{language}", "sequences": 128, "length": 512,
            "domain": "generic" if language == "general" else "code",
        }  # fmt: skip
    return Model(**{**facts, **changes})


def cell(of: str | Model, language: str, scores: Mapping[str, float], **changes: Any) -> Cell:
    """humaneval-x with 100 problems; pass@k are given by name, with 5 points on each side."""
    one = of if isinstance(of, Model) else model(of)
    drawing = changes.get("drawing", GREEDY)
    marks = (
        one.name,
        one.pattern,
        one.calibration,
        language,
        drawing.temperature if drawing else "",
    )
    facts: dict[str, Any] = {
        "identity": "/".join(map(str, (*marks, changes.get("task"), changes.get("asked")))),
        "model": one,
        "task": "humaneval-x",
        "language": language,
        "domain": "code",
        "data": Data(source=f"{language}.jsonl", digest=f"sha256-{language}", rows=164),
        "drawing": drawing,
        "asked": 100,
        "scores": tuple(
            Score(
                name=name, value=value, low=value - 0.05, high=value + 0.05,
                k=int(name.removeprefix("pass@")) if name.startswith("pass@") else None,
            )
            for name, value in scores.items()
        ),
        "harness": 1,
        "tools": {"toolchain": f"{language} 1.0"},
        "seconds": 12.5,
    }  # fmt: skip
    return Cell(**{**facts, **changes})


GREEDY_SCORES = {
    "dense": (0.42, 0.40),
    "general": (0.18, 0.20),
    "python": (0.24, 0.16),
    "javascript": (0.20, 0.20),
}
"""Of Python and JavaScript."""


def greedy_cells() -> list[Cell]:
    return [
        cell(name, language, {"pass@1": value})
        for name, values in GREEDY_SCORES.items()
        for language, value in zip(("python", "javascript"), values, strict=True)
    ]


def sampled_cells() -> list[Cell]:
    return [
        cell(name, "python", {"pass@1": one, "pass@10": ten}, drawing=SAMPLED, samples=10)
        for name, one, ten in (("dense", 0.38, 0.71), ("python", 0.19, 0.44))
    ]


def question_cells() -> list[Cell]:
    """csr by two tasks and math by one, of sub-models of some domains."""
    sets = {"dense": "", "python": "code", "math_qa": "math", "hellaswag": "csr"}
    scores = {
        "arc_easy": (0.60, 0.50, 0.52, 0.55),
        "boolq": (0.70, 0.60, 0.50, 0.53),
        "gsm8k": (0.30, 0.12, 0.21, 0.08),
    }
    hub = {name: {"calibration": f"hub:{name}"} for name in ("math_qa", "hellaswag")}
    return [
        cell(
            model(name, domain=domain, **hub.get(name, {})),
            "math" if task == "gsm8k" else "csr",
            {"exact_match" if task == "gsm8k" else "acc": value},
            task=task, domain="math" if task == "gsm8k" else "csr", drawing=None, asked=50,
        )
        for task, values in scores.items()
        for (name, domain), value in zip(sets.items(), values, strict=True)
    ]  # fmt: skip


def small() -> Study:
    return Study([COMMAND], [*sampled_cells(), *greedy_cells()])
