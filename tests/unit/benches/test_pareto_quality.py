from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.comparing import quality
from benchmarks.comparing.clock import Clock
from benchmarks.comparing.quality import Quality
from benchmarks.comparing.ways import Served

from subllm.measuring.evaluation.problems import Benchmark
from subllm.measuring.evaluation.prompts import Prompter
from subllm.models.catalog.prompt import PromptSpec
from subllm.progress import NullProgress

from .samples import RIGHT, WRONG, HereAndNow, benchmark, drafting, served


class Letters:
    """Of a tokenizer what a raw prompt needs."""

    def encode_plain(self, text: str, *, bos: bool | None = False) -> list[int]:
        return list(map(ord, text))


def measure(one: Served, data: Benchmark, directory: Path) -> Quality:
    prompter = Prompter(Letters(), PromptSpec(context_length=1024), "raw")  # type: ignore[arg-type]
    return quality.measure(one, data, prompter, HereAndNow(), directory, 1, NullProgress())


def known(one: Served, data: Benchmark, directory: Path, any_engine: bool = False):
    wanted = quality.header(one, data, "python here")
    return quality.recorded(directory, wanted, data, any_engine=any_engine)


def test_what_a_worker_writes_is_judged_and_kept(tmp_path: Path) -> None:
    one, data = served(tmp_path / "log"), benchmark(3)
    found = measure(one, data, tmp_path)
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)
    assert set(found.kept.values()) == {RIGHT[: RIGHT.index("print")]}
    assert known(one, data, tmp_path) == found
    assert measure(served(tmp_path / "log", WRONG, version="x"), data, tmp_path).value == 0.0


def test_only_what_is_missing_is_written(tmp_path: Path) -> None:
    log = tmp_path / "log"
    one, data = served(log), benchmark(5)
    measure(one, data.first(2), tmp_path)
    assert known(one, data, tmp_path) is None
    assert measure(one, data, tmp_path).passed == {f"Python/{n}": True for n in range(5)}
    asked = [line.split()[0] for line in log.read_text().splitlines()]
    assert sorted(asked) == [f"0:Python/{number}" for number in range(5)]
    assert known(one, data.first(3), tmp_path) is not None


def test_records_of_other_texts_are_not_taken(tmp_path: Path) -> None:
    one, data = served(tmp_path / "log"), benchmark(2)
    measure(one, data, tmp_path)
    newer = replace(one, version="version-2")
    other = replace(one, model=one.model.model_copy(update={"digest": f"sha256-{'4' * 64}"}))
    for way in (newer, other, drafting(one), served(tmp_path / "log", peer=True)):
        assert known(way, data, tmp_path) is None
    taken = known(newer, data, tmp_path, any_engine=True)
    assert taken is not None and taken.version == "version-1"
    assert known(other, data, tmp_path, any_engine=True) is None
    measure(newer, data, tmp_path)
    taken = known(newer, data, tmp_path, any_engine=True)
    assert taken is not None and taken.version == "version-2"


def test_whoever_drafts_writes_one_text_at_a_time(tmp_path: Path) -> None:
    one = served(tmp_path / "log")
    assert quality.together(one) > 1
    assert quality.together(drafting(one)) == 1


def test_the_clock_says_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock([600.0, 600.0])
    clock.note("begun")
    clock.part("one")
    clock.part("two")
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "begun"
    assert said[1].startswith("one; about") and said[1].endswith("left")
    assert said[2] == "two; nothing left"
