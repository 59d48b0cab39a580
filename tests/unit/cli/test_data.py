"""`subllm data`, and what it made as text to learn from, on a tiny model that writes noise."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from subllm.cli.made_text import with_made
from subllm.errors import UnknownNameError
from subllm.making.textmaking.judge import Judge
from subllm.making.textmaking.made import Made, made_path
from subllm.making.textmaking.raw_answers import RawAnswers
from subllm.models.store.store import Store

from .samples import Ran
from .tiny_store import BASE

Command = Callable[..., Ran]
NAME = f"{BASE}-python"


@pytest.fixture
def anything_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parser that takes noise, and a judge who does not mind that it was cut."""
    real = Judge.judge

    def judge(self: Judge, answer):  # type: ignore[no-untyped-def]
        return real(self, replace(answer, ended=True))

    monkeypatch.setattr("subllm.making.textmaking.judge._malformed", lambda task, text: None)
    monkeypatch.setattr(Judge, "judge", judge)


def made(home: Path, name: str, rows: list[dict[str, str]]) -> Path:
    path = home / "data" / f"{name}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    record = Made(path, "python", "m", {"file": len(rows)}, {"file": 99}, {}, len(rows), 99)
    made_path(path).write_bytes(record.record())
    return path


@pytest.mark.usefixtures("anything_goes")
def test_made_gone_on_with_listed_and_shown(tiny: Store, subllm: Command, tmp_path: Path) -> None:
    make = ["data", "make", "python", "--formats", "function", "--together", "4"]
    first = subllm(*make, "--tokens", "600")
    assert first.status == 0, first.err
    assert f"{BASE}-dense writes function until 600 tokens" in first.err
    assert "--data made:python=0.3" in first.err
    path = tiny.root / "data" / "python.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows and all(row["fence"] == "python" and row["text"] for row in rows)
    again = subllm(*make, "--tokens", "0.6k", "--json")
    assert again.json["added"] == 0 and again.json["texts"] == {"function": len(rows)}
    more = subllm(*make, "--for", "1s", "--json")
    assert more.status == 0 and more.json["added"] > 0
    assert path.read_text().startswith(json.dumps(rows[0], ensure_ascii=False))

    listed = subllm("data", "list", "--json").json
    assert [one["path"] for one in listed] == [str(path)]
    assert "python" in subllm("data", "list").out
    shown = subllm("data", "show", "python")
    assert shown.status == 0 and "  function" in shown.out
    assert subllm("data", "show", str(path)).out == shown.out
    own = subllm(*make, "--tokens", "10", "--out", str(tmp_path / "own.jsonl"))
    assert own.status == 0 and (tmp_path / "own.answers.xz").exists()


def test_a_model_that_writes_nothing_fit_is_told(
    tiny: Store, subllm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subllm.making.textmaking.make._HOPELESS", 6)
    ran = subllm("data", "make", "python", "--formats", "function", "--together", "6")
    assert ran.status == 7
    assert "none of the last 6 texts is fit to learn from (cut)" in ran.err.splitlines()[-1]
    assert len(RawAnswers(tiny.root / "data" / "python.answers.xz")) >= 6  # none of it is lost


@pytest.mark.usefixtures("anything_goes")
def test_ctrl_c_keeps_what_there_is(
    tiny: Store, subllm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from subllm.making.textmaking.maker import Maker

    real = Maker.take

    def take(self: Maker, answer):  # type: ignore[no-untyped-def]
        if len(self.samples) == 3:
            raise KeyboardInterrupt
        return real(self, answer)

    monkeypatch.setattr(Maker, "take", take)
    ran = subllm("data", "make", "python", "--formats", "function", "--together", "2")
    assert ran.status == 130 and "texts" in ran.out
    path = tiny.root / "data" / "python.jsonl"
    assert len(path.read_text().splitlines()) == 3
    assert len(RawAnswers(path.with_name("python.answers.xz"))) >= 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["make", "cobol"], "text is made in python, java"),
        (["make", "--tokens", "many"], "'many' is no number of tokens"),
        (["make", "--tokens", "0"], "'0' is no number of tokens"),
        (["make", "--for", "soon"], "'soon' is no duration"),
        (["make", "--formats", "fil"], "unknown format 'fil'; did you mean file"),
        (["make", "--model", "nobody:1m"], "nobody:1m"),
        (["make", "--seeds", "/nowhere"], "--seeds /nowhere is no directory"),
        (["make", "--benchmarks", "/nowhere.jsonl"], "--benchmarks: /nowhere.jsonl is not there"),
        (["make", "--out", "a.txt"], "does not end in .jsonl"),
        (["show", "nothing"], "was not made by 'subllm data make'"),
    ],
)
def test_bad_requests_are_one_line(
    arguments: list[str], message: str, tiny: Store, subllm: Command
) -> None:
    ran = subllm("data", *arguments)
    assert (ran.status, ran.out) == (2, "")
    last = ran.err.splitlines()[-1]
    assert last.startswith("error: ") and message in last, ran.err
    assert not (tiny.root / "data").exists() or not list((tiny.root / "data").glob("*.jsonl"))


def test_a_file_that_was_not_made_here_stays(tiny: Store, subllm: Command, tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"text": "x"}\n')
    ran = subllm("data", "make", "--out", str(path))
    assert ran.status == 2 and "was not made here" in ran.err
    assert path.read_text() == '{"text": "x"}\n'


def test_nothing_made_yet(tiny: Store, subllm: Command) -> None:
    assert "No text was made yet" in subllm("data", "list").err
    assert subllm("data", "list", "--json").json == []


def test_made_text_by_name(tmp_path: Path) -> None:
    path = made(tmp_path, "python", [{"text": "x"}])
    other = made(tmp_path, "my-own", [{"text": "x"}])
    assert with_made(tmp_path, "made:python") == str(path)
    mixed = "pack:python=0.5,made:python=0.3, made:my-own=0.2"
    assert with_made(tmp_path, mixed) == f"pack:python=0.5,{path}=0.3, {other}=0.2"
    assert with_made(tmp_path, "/a/made:python") == "/a/made:python"
    with pytest.raises(UnknownNameError, match="'pyton'; did you mean python"):
        with_made(tmp_path, "made:pyton")


def rows(count: int) -> list[dict[str, str]]:
    body = "".join(f"    value = value * {n} - {n + 1}\n" for n in range(9))
    return [
        {"text": f"def made_{n}(value):\n{body}    return value + {n}\n", "fence": "python"}
        for n in range(count)
    ]


@pytest.mark.usefixtures("small")
def test_a_sub_model_learns_from_what_was_made(
    tiny: Store, code: str, subllm: Command, tmp_path: Path
) -> None:
    where = [
        "--base",
        BASE,
        "--calibration",
        code,
        "calibration.samples=4",
        "calibration.seq_len=64",
    ]
    assert subllm("extract", "python", *where, "--recover", "off").status == 0
    path = made(tiny.root, "python", rows(60))
    recover = ["recover", NAME, "--for", "2048tok", "report.problems=false"]
    ran = subllm(*recover, "--data", "made:python=0.25", "--json")
    assert ran.status == 0, ran.err
    assert f"mix:jsonl:{path}=0.25,path:{code}=0.75" in ran.err

    before = tiny.resolve(NAME)
    state = {p: p.stat().st_mtime_ns for p in tiny.root.rglob("*.state")}
    bad = tmp_path / "bad.jsonl"
    for content, message in (
        ("", "bad.jsonl has 0 tokens, recovery needs 2048; add text to it"),
        ('{"text": "  "}\n{"text": ""}\n', "bad.jsonl has 0 tokens, recovery needs 2048"),
        ('{"text": "def f(x): return x"}\n', "tokens, recovery needs 2048; add text to it"),
        ('{"text": "x"}\n{"text": \n', "bad.jsonl:2: not valid JSON"),
        ('{"text": "x"}\n[1]\n', "bad.jsonl:2: not a JSON object"),
        ('{"code": "x"}\n', 'bad.jsonl:1: a row has "text"'),
        ('{"prefix": "x", "middle": " ", "suffix": "y"}\n', "bad.jsonl:1: 'middle' is blank"),
    ):
        bad.write_text(content)
        for given in (["--calibration", str(bad)], ["--data", f"{bad}=0.5"]):
            ran = subllm(*recover, *given)
            assert (ran.status, ran.out) == (2, ""), ran.err
            last = ran.err.splitlines()[-1]
            assert last.startswith("error: ") and message in last, last
    for given, message in (
        ("made:java=0.5", "made text"),
        (f"{path}=1", "leave nothing to other text"),
        (f"{path}=0.5,{bad}", "has no weight"),
        ("/nowhere", "is no calibration source that exists"),
    ):
        ran = subllm(*recover, "--data", given)
        assert (ran.status, ran.out) == (2, "") and message in ran.err.splitlines()[-1], ran.err
    assert tiny.resolve(NAME) == before
    assert state == {p: p.stat().st_mtime_ns for p in tiny.root.rglob("*.state")}


@pytest.mark.usefixtures("small")
def test_own_text_that_is_unreadable_makes_no_model(
    tiny: Store, code: str, subllm: Command, tmp_path: Path
) -> None:
    where = [
        "--base",
        BASE,
        "--calibration",
        code,
        "calibration.samples=4",
        "calibration.seq_len=64",
    ]
    assert subllm("extract", "python", *where, "--recover", "off").status == 0
    names = tiny.names()
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(b'{"text": "x"}\n{"text": "\xff"}\n')
    ran = subllm("tune", NAME, "--data", str(bad), "--for", "2048tok")
    assert (ran.status, ran.out) == (2, "")
    assert "bad.jsonl:2: not valid JSON ('utf-8' codec" in ran.err.splitlines()[-1]
    bad.write_text('{"text": "def f(x): return x"}\n' * 9)
    ran = subllm("tune", NAME, "--data", str(bad), "--for", "2048tok")
    assert ran.status == 2 and "add text to it" in ran.err.splitlines()[-1]
    assert tiny.names() == names
