"""The built-in problems have no text in common with benchmarks or packs."""

from __future__ import annotations

from pathlib import Path

import pytest

from subllm.making.calibration.packs import DATA, CodeSample, read_pack
from subllm.making.textmaking.benchmark_files import read_problems
from subllm.making.textmaking.known import KnownText
from subllm.measuring.evaluation.builtin import builtin_texts

SHARED = Path(__file__).parents[4] / "shared" / "data"


@pytest.mark.shared
def test_nothing_is_taken_from_a_benchmark() -> None:
    paths = sorted(SHARED.glob("*.jsonl.gz"))
    if not paths:
        pytest.skip(f"NO BENCHMARK DATA: {SHARED} is not there")
    known = KnownText(text for path in paths for one in read_problems(path) for text in one.texts)
    assert {gram for text in builtin_texts() for gram in known.shared(text)} == set()


def test_nothing_of_them_is_in_a_pack() -> None:
    known = KnownText(builtin_texts())
    for path in sorted(DATA.glob("*.jsonl.xz")):
        for sample in read_pack(path).samples:
            answer = sample.code if isinstance(sample, CodeSample) else sample.text
            assert not known.shared(answer) and not known.shared(sample.instruction), sample.id
