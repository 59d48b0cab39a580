from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path

import assemble
import pytest
from checkers import Checker
from tasks import Task, tasks

from subllm.making.textmaking.known import KnownText

WORDS = ("alpha", "beta", "gamma", "delta", "kappa", "sigma", "omega", "theta", "zeta", "iota")


def program(number: int) -> str:
    """Python that shares few 5-grams with that of another number."""
    a, b = WORDS[number % 10], WORDS[number // 10 % 10]
    lines = [f"def {a}_{i}_{b}(x{number}):\n    return {a}{i} + {b}{number}\n" for i in range(4)]
    return "\n".join(lines)


def answer(task: Task, code: str, ended: bool = True) -> dict:
    return {
        "id": task.id,
        "by": "an engine",
        "ended": ended,
        "tokens": 9,
        "text": f"```{task.tag}\n{code}```",
    }


class Counted:
    """A checker that takes what has no "broken" in it, and counts what it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def accepts(self, code: str) -> bool:
        self.asked += 1
        return "broken" not in code

    def verdicts(self, path: Path, version: str = "tool 1") -> assemble.Verdicts:
        return assemble.Verdicts(path, {"python": Checker(self.accepts, lambda: version)})


def build(
    answers: list[dict],
    verdicts: assemble.Verdicts,
    benchmark: KnownText | None = None,
    asked: int = 60,
) -> assemble.Pack:
    return assemble.build(
        "python",
        {a["id"]: a for a in answers},
        verdicts,
        benchmark or KnownText([]),
        lambda text: len(text.split()),
        asked=asked,
        seed=0,
    )


def test_accepted_and_rejected_are_counted(tmp_path: Path) -> None:
    made = tasks("python", 60)
    answers = [answer(task, program(n)) for n, task in enumerate(made[:20])]
    answers[1] = answer(made[1], program(1), ended=False)
    answers[2] = answer(made[2], program(2) + "broken\n")
    answers[3] = answer(made[3], "x = 1\n")
    answers[4] = answer(made[4], program(4) + "# by Harper Lee\n")
    outside = answer(tasks("python", 61)[60], program(99))
    pack = build([*answers, outside], Counted().verdicts(tmp_path / "v.json"))
    assert pack.generated == 20
    assert pack.rejected == {"cut": 1, "does not compile": 1, "too short": 1, "person": 1}
    kept = [task for n, task in enumerate(made[:20]) if n not in (1, 2, 3, 4)]
    assert [s["id"] for s in pack.samples] == sorted(task.id for task in kept)
    for split in ("train", "heldout"):
        texts = [program(n) for n, t in enumerate(made[:20]) if t in kept and t.split == split]
        assert texts
        assert pack.tokens[split] == sum(len(text.split()) for text in texts)
    first = pack.samples[0]
    task = next(t for t in kept if t.id == first["id"])
    assert first == {
        "id": task.id,
        "split": task.split,
        "instruction": task.instruction,
        "answer": "code",
        "tag": "python",
        "code": program(made.index(task)),
    }


def test_of_near_duplicates_across_splits_the_training_sample_goes(tmp_path: Path) -> None:
    made = tasks("python", 60)
    train = next(t for t in made if t.split == "train")
    heldout = next(t for t in made if t.split == "heldout")
    answers = [answer(train, program(7)), answer(heldout, program(7))]
    pack = build(answers, Counted().verdicts(tmp_path / "v.json"))
    assert [s["id"] for s in pack.samples] == [heldout.id]
    assert pack.rejected == {"near duplicate": 1}


def test_prose_samples_have_a_text_and_no_tag(tmp_path: Path) -> None:
    task = next(t for t in tasks("general", 9) if t.answer == "prose")
    text = (
        "The water of the sea is warmed by the sun and some of it rises as vapour. It cools on "
        "its way up and becomes clouds, which are made of very small drops. When the drops have "
        "grown large enough they fall as rain, and the rain finds its way back to the sea in "
        "rivers, so that the whole of it can begin again."
    )
    raw = {"id": task.id, "ended": True, "tokens": 9, "text": text}
    pack = assemble.build(
        "general",
        {task.id: raw},
        assemble.Verdicts(tmp_path / "v.json", {}),
        KnownText([]),
        len,
        asked=9,
        seed=0,
    )
    assert pack.samples == [
        {
            "id": task.id,
            "split": task.split,
            "instruction": task.instruction,
            "answer": "prose",
            "text": text + "\n",
        }
    ]


def test_verdicts_are_kept_for_as_long_as_the_tool_is_the_same(tmp_path: Path) -> None:
    counted, path = Counted(), tmp_path / "v.json"
    verdicts = counted.verdicts(path)
    assert [verdicts.accepts("python", c) for c in ("a", "broken", "a")] == [True, False, True]
    verdicts.save()
    again = counted.verdicts(path)
    assert [again.accepts("python", c) for c in ("a", "broken")] == [True, False]
    assert counted.asked == 2
    assert counted.verdicts(path, "tool 2").accepts("python", "a")
    assert counted.asked == 3


def test_a_missing_tool_is_an_error_and_no_rejection(tmp_path: Path) -> None:
    task = tasks("python", 1)[0]
    with pytest.raises(LookupError, match="no checker for python"):
        build([answer(task, program(0))], assemble.Verdicts(tmp_path / "v.json", {}))


def test_packs_are_the_same_bytes_and_say_where_they_come_from(tmp_path: Path) -> None:
    made = tasks("python", 60)
    answers = [answer(task, program(n)) for n, task in enumerate(made[:12])]
    copied = "one two three four five six seven eight nine ten eleven"
    answers[0] = answer(made[0], program(0) + f"# {copied}\n")
    del answers[5]["by"]
    with gzip.open(tmp_path / "problems.jsonl.gz", "wt") as file:
        file.write(json.dumps({"prompt": copied, "number": 3}) + "\n")
    names, benchmark = assemble.read_benchmarks(tmp_path)
    run = {"base": "b:1", "licence": "Apache-2.0", "seed": 0, "tasks": {"python": 60, "java": 9}}
    sizes, data = [], []
    for order in (answers, answers[::-1]):
        pack = build(order, Counted().verdicts(tmp_path / "v.json"), benchmark)
        first = assemble.header(pack, run, names)
        path = tmp_path / "out/python.jsonl.xz"
        sizes.append(assemble.write(path, first, pack.samples))
        data.append(path.read_bytes())
    assert data[0] == data[1]
    assert sizes[0] == len(data[0])
    lines = [json.loads(line) for line in lzma.decompress(data[0]).decode().split("\n")[:-1]]
    assert lines[1:] == pack.samples
    assert lines[0] == {
        "pack": "python",
        "version": 1,
        "provenance": {
            "base": "b:1",
            "licence": "Apache-2.0",
            "seed": 0,
            "tasks": 60,
            "generated": 12,
            "accepted": 11,
            "rejected": {"benchmark overlap": 1},
            "engines": {"an engine": 10, "not recorded": 1},
            "checker": "tool 1",
            "tokens": {"train": pack.tokens["train"], "heldout": pack.tokens["heldout"]},
            "benchmark overlap": {
                "compared": ["problems.jsonl.gz"],
                "rule": "no shared 10-gram of words",
                "rejected": 1,
            },
            "command": "scripts/make-packs assemble",
        },
    }


def test_benchmarks_must_be_there_when_they_are_asked_for(tmp_path: Path) -> None:
    assert assemble.read_benchmarks(None)[0] == []
    with pytest.raises(SystemExit, match=r"no \.jsonl\.gz files"):
        assemble.read_benchmarks(tmp_path)
