from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.comparing import speed
from benchmarks.comparing.problems import Plan, spread
from benchmarks.comparing.results import compared, read_per_token

from .samples import RIGHT, benchmark, drafting, served

BODY = RIGHT[: RIGHT.index("print")]


def plan(rounds: int = 2, each: int = 2) -> Plan:
    asked = spread(benchmark(10).problems, rounds, each)
    return Plan(
        [
            [{"id": p.id, "prompt": [1], "max_tokens": 100, "head": p.head} for p in row]
            for row in asked
        ]
    )


def test_no_prompt_comes_twice_and_all_parts_of_the_data_are_asked() -> None:
    rows = spread(benchmark(164).problems, 5, 4)
    names = [int(one.id.partition("/")[2]) for row in rows for one in row]
    assert len(set(names)) == 20
    for row in rows:
        numbers = [int(one.id.partition("/")[2]) for one in row]
        assert min(numbers) < 41 and max(numbers) >= 123
    few = spread(benchmark(3).problems, 5, 4)
    assert [len(row) for row in few] == [3] * 5


def test_a_record_is_named_by_all_that_decides_the_speed(tmp_path: Path) -> None:
    one = served(tmp_path / "log")
    key = speed.speed_key(one, plan(), 2, "this cpu")
    assert key == speed.speed_key(replace(one, command=("elsewhere",)), plan(), 2, "this cpu")
    others = [
        speed.speed_key(replace(one, version="version-2"), plan(), 2, "this cpu"),
        speed.speed_key(drafting(one), plan(), 2, "this cpu"),
        speed.speed_key(replace(drafting(one), draft_digest="another"), plan(), 2, "this cpu"),
        speed.speed_key(
            replace(one, model=one.model.model_copy(update={"digest": "sha256-4"})), plan(), 2,
            "this cpu",
        ),
        speed.speed_key(one, plan(3), 2, "this cpu"),
        speed.speed_key(one, plan(), 1, "this cpu"),
        speed.speed_key(one, plan(), 2, "that cpu"),
    ]  # fmt: skip
    assert len({key, *others}) == len(others) + 1


def race(ways: list, rounds: Plan, directory: Path, stop_after: int = 99) -> list[speed.Speeds]:
    """All rounds, or until so many samples were taken."""
    speeds = [speed.recorded(one, rounds, 1, directory) for one in ways]
    said: list[str] = []

    def say(what: str, one: object) -> None:
        said.append(what)
        if len(said) == stop_after:
            raise KeyboardInterrupt

    speed.measure(ways, speeds, rounds, 1, say, lambda: None)
    return speeds


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path) -> None:
    log = tmp_path / "log"
    ways = [served(log), drafting(served(log))]
    rounds = plan()
    with pytest.raises(KeyboardInterrupt):
        race(ways, rounds, tmp_path / "speed", stop_after=3)
    before = log.read_text().splitlines()
    speeds = race(ways, rounds, tmp_path / "speed")
    asked = log.read_text().splitlines()[len(before) :]
    warm = 1  # completion of the worker that both have
    assert len(before) == 3 * 2 + warm
    assert len(asked) == 1 * 2 + warm
    for had in speeds:
        assert sorted(had.rounds) == ["0", "1"]
        assert had.rate and had.rate > 0
        assert set(had.texts.values()) == {BODY}
    assert not race(ways, rounds, tmp_path / "speed")[0].failed
    assert len(log.read_text().splitlines()) == len(before) + len(asked)


def test_a_way_that_fails_is_left_out_of_the_rest(tmp_path: Path) -> None:
    good = served(tmp_path / "log")
    broken = replace(good, way=replace(good.way, title="broken"), command=(*good.command[:1], "no"))
    speeds = race([broken, good], plan(), tmp_path / "speed")
    assert "No such file" in speeds[0].failed and not speeds[0].rounds
    assert len(speeds[1].rounds) == 2


def test_a_damaged_record_is_measured_again(tmp_path: Path) -> None:
    one = served(tmp_path / "log")
    (had,) = race([one], plan(), tmp_path / "speed")
    had.path.write_text(had.path.read_text()[:-20])
    assert not speed.recorded(one, plan(), 1, tmp_path / "speed").rounds
    assert len(race([one], plan(), tmp_path / "speed")[0].rounds) == 2


def test_drafts_read_less_of_the_model_and_some_of_the_draft(tmp_path: Path) -> None:
    one = replace(drafting(served(tmp_path / "log")), draft_read=10)
    (had,) = race([one], plan(1, 1), tmp_path / "speed")
    decoded = had.samples[0]["decoded"]
    assert had.tokens_per_step == decoded / had.samples[0]["steps"]
    assert read_per_token(one, had) == pytest.approx(1000 / had.tokens_per_step + 70 / decoded)
    assert read_per_token(served(tmp_path / "log"), had) == 1000
    assert read_per_token(one, None) is None
    assert compared(had, None) == (0, 0)
