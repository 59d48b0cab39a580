"""Forty small problems of subllm's own in each language: what a sub-model has kept is measured
on problems that no benchmark has, so that nothing is ever chosen by a benchmark's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import yaml

from subllm.measuring.evaluation.builtin.render import LANGUAGES, Idea, problem
from subllm.measuring.evaluation.problems import Benchmark

__all__ = ["BUILTIN", "LANGUAGES", "builtin_benchmark", "builtin_texts", "ideas"]

BUILTIN = "builtin"
_DATA = Path(__file__).with_name("problems.yaml")


@cache
def ideas() -> tuple[Idea, ...]:
    """The problems, in no language yet."""
    rows = yaml.safe_load(_DATA.read_text(encoding="utf-8"))
    fields = ("name", "doc", "params", "returns", "tests")
    return tuple(
        Idea(
            **{field: row[field] for field in fields},
            solutions={language: row[language] for language in LANGUAGES},
        )
        for row in rows
    )


def builtin_benchmark(language: str) -> Benchmark:
    """The problems in one of LANGUAGES. The digest covers prompts and tests."""
    problems = tuple(problem(idea, language) for idea in ideas())
    seal = hashlib.sha256()
    for one in problems:
        seal.update(f"{one.prompt}\0{one.test}\0".encode())
    digest = f"sha256-{seal.hexdigest()}"
    return Benchmark(BUILTIN, "built in", digest, len(problems), problems)


def builtin_texts() -> Iterator[str]:
    """All that is in them, so that other text can stay clear of it."""
    for language in LANGUAGES:
        for one in builtin_benchmark(language).problems:
            yield f"{one.prompt}{one.canonical}"
            yield one.test
