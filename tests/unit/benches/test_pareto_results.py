from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks import pareto
from benchmarks.comparing import quality, speed
from benchmarks.comparing.problems import load
from benchmarks.comparing.quality import Quality
from benchmarks.comparing.results import Cell, compared, documents, mixed, way, write
from benchmarks.comparing.ways import WAYS, Served, chosen

from .samples import drafting, served

MACHINE = {"cpu": "tiny cpu", "threads": 2, "read_bandwidth": 1e6}
SETTINGS = {"rounds": 2, "problems": 2, "of": 164}


def speeds(rates: list[float], text: str = "x", at: str = "2026-01-01T10:0{}:00+00:00"):
    rounds = {
        str(number): {
            "at": at.format(number),
            "decoded": rate * 2,
            "seconds": 2.0,
            "steps": rate,
            "drafts": {},
            "texts": {f"Python/{number}": text},
        }
        for number, rate in enumerate(rates)
    }
    return speed.Speeds("key", Path("nowhere"), rounds)


def judged(value: float, version: str = "version-1") -> Quality:
    kept = {"Python/0": "x", "Python/1": "x"}
    passed = {"Python/0": True, "Python/1": False}
    return Quality(value, value - 0.1, value + 0.1, passed, kept, version, 10)


def cell(one: Served, had: speed.Speeds, found: Quality, borrowed: bool = False) -> Cell:
    return Cell(one, had, found, borrowed, compared(had, found))


def cells(tmp_path: Path) -> list[Cell]:
    ours, peer = served(tmp_path / "log"), served(tmp_path / "log", peer=True)
    return [
        cell(peer, speeds([10.0, 30.0, 20.0]), judged(0.5)),
        cell(ours, speeds([40.0]), judged(0.5, "version-0")),
        cell(drafting(ours), speeds([80.0], "y"), judged(0.5), borrowed=True),
    ]


def test_the_files_tell_what_was_measured(tmp_path: Path) -> None:
    found = documents("tiny:1m", cells(tmp_path), MACHINE, SETTINGS)
    paths = write(tmp_path / "out", "tiny:1m", found)
    assert sorted(path.name for path in paths) == [
        f"pareto-tiny-1m.{kind}" for kind in ("json", "md", "png", "txt")
    ]
    record = json.loads((tmp_path / "out/pareto-tiny-1m.json").read_text())
    assert [one["tokens_per_second"] for one in record["ways"]] == [20.0, 40.0, 80.0]
    assert record["front"] == ["dense int4, drafts"]
    assert record["ways"][0]["samples"] == [10.0, 30.0, 20.0]
    assert record["ways"][0]["passed"] == ["Python/0"]
    text = found["txt"]
    assert isinstance(text, str)
    assert "the first 2 problems" in text and "tiny cpu, 2 threads" in text
    assert "dense int4: judged as version version-0 of the engine wrote" in text
    assert "plain decoding: dense int4, drafts. Of 1 timed texts 0 are the same" in text
    assert "llama.cpp Q4_K_M is dominated by dense int4, drafts: 4.00 times as fast" in text


def test_bandwidth_is_what_decoding_makes_use_of(tmp_path: Path) -> None:
    plain, drafted = cells(tmp_path)[1:]
    assert way(plain, 1e6).share == pytest.approx(40 * 1000 / 1e6)
    assert way(drafted, 1e6).bytes == 1000 / 2  # two tokens a step
    assert way(plain, None).share is None


def test_speeds_of_different_days_are_not_shown_as_one_run(tmp_path: Path) -> None:
    some = cells(tmp_path)
    assert mixed(some) == ""
    some[1] = replace(some[1], speeds=speeds([40.0], at="2026-01-02T10:0{}:00+00:00"))
    assert "--again-speed" in mixed(some)


def test_ways_with_drafts_borrow_the_judgement_of_plain_ones(tmp_path: Path) -> None:
    ours = served(tmp_path / "log")
    titles = [one.way.title for one in pareto.to_judge([drafting(ours)], False)]
    assert titles == ["dense int4"]
    titles = [one.way.title for one in pareto.to_judge([ours, drafting(ours)], False)]
    assert titles == ["dense int4"]
    titles = [one.way.title for one in pareto.to_judge([ours, drafting(ours)], True)]
    assert titles == ["dense int4", "dense int4, drafts"]
    plain = pareto.to_judge([drafting(ours)], False)[0]
    assert quality.together(plain) > 1
    both = [quality.header(one, pareto.Benchmark("f", "s", f"sha256-{'3' * 64}", 1, ()), "t")
            for one in (ours, plain)]  # fmt: skip
    assert both[0].key == both[1].key


def test_ways_are_chosen_by_parts_of_their_titles() -> None:
    assert chosen([]) == list(WAYS)
    assert [one.title for one in chosen(["=dense int4", "8:16"])] == [
        "dense int4", "8:16 int8", "8:16 int4",
    ]  # fmt: skip
    with pytest.raises(SystemExit, match="dense bf16"):
        chosen(["nothing"])


def test_data_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(
        SystemExit, match=r"no benchmark data: .*no\.jsonl is not there; give --data"
    ):
        load(str(tmp_path / "no.jsonl"))
