"""Functions that a base writes: which answers become a pack."""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

import functions
import pytest

from subllm.making.calibration.packs import WRITTEN, FileSample, read_pack
from subllm.making.textmaking.known import shipped
from subllm.making.textmaking.raw_answers import RawAnswer, RawAnswers
from subllm.making.textmaking.tasks import Task
from subllm.models.store.store import Store

GOOD = "/* Counts gaps. */\nint count_gaps(string text) {\n    return count(text, ' ');\n}\n"
RECITED = "int f(int alpha, int beta) {\n    return alpha + beta * gamma - delta + alpha;\n}\n"


@pytest.mark.parametrize("language", ["java", "cpp", "javascript"])
def test_the_answers_that_are_kept_give_the_pack_that_is_shipped(
    language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Byte for byte; with the hashes of benchmarks in the place of their texts."""
    shipped_pack = WRITTEN / f"{language}.jsonl.xz"
    told = read_pack(shipped_pack).header.provenance
    base = {name: told[name] for name in ("base", "source", "revision", "digest", "licence")}
    monkeypatch.setattr(functions, "find_base", lambda store, name: base)
    monkeypatch.setattr(functions, "load_settings", lambda: argparse.Namespace(home=tmp_path))
    compared = told["benchmark overlap"]["compared"]
    monkeypatch.setattr(functions, "read_benchmarks", lambda _: (compared, shipped()))
    functions.main(["assemble", "--language", language, "--out", str(tmp_path)])
    assert (tmp_path / shipped_pack.name).read_bytes() == shipped_pack.read_bytes()


def test_answers_become_a_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(number: int, text: str, ended: bool = True) -> RawAnswer:
        task = Task(f"f{number}", "function", "cpp", "body", prefix=text[:9])
        return RawAnswer(task, "base, int4 weights", ended, 10 + number, text[9:])

    with RawAnswers(tmp_path / "answers" / "cpp.answers.xz") as answers:
        answers.append(answer(3, GOOD))
        answers.append(answer(1, GOOD))  # the first by its name, and so the one that is kept
        answers.append(answer(2, GOOD[:40], ended=False))
        answers.append(answer(4, RECITED))
    problems = tmp_path / "problems"
    problems.mkdir()
    with gzip.open(problems / "p.jsonl.gz", "wt") as file:
        file.write(json.dumps({"task_id": "1", "prompt": RECITED}) + "\n")
    monkeypatch.setattr(functions, "find_base", lambda store, name: {"base": name})
    monkeypatch.setattr(functions, "load_settings", lambda: argparse.Namespace(home=tmp_path))
    monkeypatch.setattr(functions, "Store", Store)
    given = ["--answers", str(tmp_path / "answers"), "--out", str(tmp_path / "out")]
    functions.main(["assemble", "--language", "cpp", *given, "--benchmarks", str(problems)])
    pack = read_pack(tmp_path / "out/cpp.jsonl.xz")
    (sample,) = pack.samples
    assert isinstance(sample, FileSample) and sample.code == GOOD and sample.tag == "cpp"
    assert sample.id == "f1" and pack.header.pack == "written:cpp"
    told = pack.header.provenance
    assert told["generated"] == 4 and told["accepted"] == 1 and told["written tokens"] == 11
    assert told["rejected"] == {"benchmark overlap": 1, "cut": 1, "near duplicate": 1}
    assert told["writers"] == ["base, int4 weights"]
