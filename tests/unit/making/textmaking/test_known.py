"""What must not be learned from, by hashes."""

from __future__ import annotations

from pathlib import Path

import pytest

from subllm.making.calibration.packs import DATA, WRITTEN, FileSample, ProseSample, read_pack
from subllm.making.textmaking import known
from subllm.making.textmaking.benchmark_files import problem_files, read_problems
from subllm.making.textmaking.known import KnownText, shipped, write_grams
from subllm.measuring.evaluation.builtin import builtin_texts

SHARED = Path(__file__).parents[5] / "shared" / "data"
TEXT = "one two three four five six seven eight nine ten eleven twelve"


def test_hashes_are_read_as_they_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "some.grams"
    size = write_grams(KnownText([TEXT]), ["b.jsonl", "a.jsonl"], path)
    assert path.stat().st_size == size and b"seven" not in path.read_bytes()
    monkeypatch.setattr(known, "GRAMS", path)
    found = shipped()
    assert found.compared == ("a.jsonl", "b.jsonl") and len(found.hashes) == 3
    assert found.overlaps(f"x {TEXT.upper()}") == "benchmark overlap"
    assert found.overlaps(TEXT[4:44]) is None
    assert found.shared(TEXT[:48]) == {tuple(TEXT.split()[:10])}


def test_the_shipped_ones_are_small_and_know_humaneval() -> None:
    assert known.GRAMS.stat().st_size < 200_000
    found = shipped()
    assert {"HumanEval.jsonl.gz", "humaneval_java.jsonl.gz"} <= set(found.compared)
    recited = (
        "Check if in given list of numbers, are any two numbers closer to each other than\n"
        "    given threshold."
    )
    assert found.overlaps(recited) and found.overlaps(f"/* {recited} */")
    # What is ours is nothing of theirs: a hash that is too short would say so.
    for sample in read_pack(DATA / "python.jsonl.xz").samples:
        assert not found.overlaps(sample.text if isinstance(sample, ProseSample) else sample.code)
    assert not any(found.overlaps(text) for text in builtin_texts())
    for path in sorted(WRITTEN.glob("*.xz")):
        for sample in read_pack(path).samples:
            assert isinstance(sample, FileSample) and not found.overlaps(sample.code)


@pytest.mark.shared
def test_they_are_those_of_the_benchmarks() -> None:
    paths = list(problem_files([SHARED])) if SHARED.is_dir() else []
    if not paths:
        pytest.skip(f"NO BENCHMARK DATA: {SHARED} is not there")
    given = KnownText(t for path in paths for one in read_problems(path) for t in one.texts)
    assert given.hashes == shipped().hashes
