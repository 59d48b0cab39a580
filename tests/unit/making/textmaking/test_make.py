"""From tasks to a file of rows: many at once, resumed, judged, counted."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from subllm.errors import CalibrationError, TableError, UsageError
from subllm.making.calibration.jsonl import JsonlSource
from subllm.making.calibration.source import Document
from subllm.making.textmaking.judge import Judge
from subllm.making.textmaking.known import KnownText
from subllm.making.textmaking.made import Made, answers_path, made_path, read
from subllm.making.textmaking.make import MakeOptions, check
from subllm.making.textmaking.maker import Maker, Wanted
from subllm.making.textmaking.own_code import code_tasks
from subllm.making.textmaking.raw_answers import RawAnswers
from subllm.making.textmaking.tasks import FORMS, Form, Task, roots
from subllm.making.textmaking.writer import Asker, Draws, write
from subllm.models.catalog.prompt import FimSpec, PromptSpec
from subllm.models.text import fim
from subllm.models.text.hole_end import Hole

from .scripted import ScriptedEngine, tokenizer

# Two special tokens must serve as three markers.
FIM = FimSpec(prefix="<|mark|>", suffix="<|fill|>", middle="<|mark|><|fill|>")
ROOM = PromptSpec(fim=FIM, context_length=4096)
PLAIN = PromptSpec(context_length=256)


def body(request: Any) -> tuple[str, bool]:
    """Something to keep for every second function, each another."""
    number = int(request.id.rpartition("-")[2])
    words = " + ".join(f"value_{number}_{i}" for i in range(8))
    return (f"    total = {words}\n    return total\n", number % 2 == 0)


def run(
    path: Path, engine: ScriptedEngine, tokens: int, forms: tuple[Form, ...] = ("function",)
) -> Maker:
    asker = Asker(tokenizer(), ROOM, Draws())
    bare = (task for task in roots("python", forms) if task.prefix.endswith(":\n"))
    with RawAnswers(path) as answers:
        maker = Maker(answers, Judge(KnownText()), Wanted(forms, bare))
        for _ in write(
            engine, asker, maker, "m", together=4,  # type: ignore[arg-type]
            enough=lambda: maker.tokens.total() >= tokens,
        ):  # fmt: skip
            pass
    return maker


def test_several_write_at_once_until_there_is_enough(tmp_path: Path) -> None:
    engine = ScriptedEngine(body)
    maker = run(tmp_path / "a.xz", engine, 3000)
    assert engine.most == 4 and not engine.has_work()
    assert 3000 <= maker.tokens.total() < 3300
    assert len(maker.samples) == maker.answered - maker.rejected.total() > 10
    assert set(maker.rejected) == {"cut"}
    drawn = Counter(request.params.temperature for request in engine.asked)
    assert drawn[0.8] > drawn[0.3] > 0
    assert len({request.params.seed for request in engine.asked}) == len(engine.asked)


def test_a_run_goes_on_where_another_ended(tmp_path: Path) -> None:
    first = run(tmp_path / "a.xz", ScriptedEngine(body), 1000)
    again = ScriptedEngine(body)
    second = run(tmp_path / "a.xz", again, 3000)
    assert second.samples[: len(first.samples)] == first.samples
    ids = [answer.task.id for answer in RawAnswers(tmp_path / "a.xz")]
    assert len(set(ids)) == len(ids) == second.answered
    assert not {request.id for request in again.asked} & {s.id for s in first.samples}
    nothing = ScriptedEngine(body)
    assert run(tmp_path / "a.xz", nothing, 3000).samples == second.samples
    assert nothing.asked == []


def test_what_is_there_stays_when_other_forms_are_asked_for(tmp_path: Path) -> None:
    first = run(tmp_path / "a.xz", ScriptedEngine(body), 1000)
    other = run(tmp_path / "a.xz", ScriptedEngine(lambda _: ("", True)), 1, forms=("chat",))
    assert other.samples == first.samples


def test_who_turns_in_circles_or_has_ended_is_stopped(tmp_path: Path) -> None:
    circles = ScriptedEngine(lambda _: ("    x = [1, 2, 3]\n" * 200, True))
    maker = run(tmp_path / "a.xz", circles, 1)  # no answer is any good
    assert maker.rejected["cut"] == maker.answered == len(circles.aborted) > 100
    assert max(answer.tokens for answer in RawAnswers(tmp_path / "a.xz")) < 600

    engine = ScriptedEngine(lambda _: (f"    return a;\n}}\n{'int more;' * 90}", False))
    task = Task("c", "function", "cpp", "body", prefix="int f(int a) {\n")
    with RawAnswers(tmp_path / "b.xz") as answers:
        maker = Maker(answers, Judge(KnownText()), Wanted(("function",), iter([task])))
        found = list(
            write(engine, Asker(tokenizer(), ROOM, Draws()), maker, "m", together=4,  # type: ignore[arg-type]
                  enough=lambda: False)
        )  # fmt: skip
    assert engine.aborted == ["c"] and [kept for _, kept in found] == [True]
    assert maker.samples[0].text == "int f(int a) {\n    return a;\n}\n"


def test_what_comes_after_is_where_writing_stops() -> None:
    asker = Asker(tokenizer(), ROOM, Draws())

    def ends(**task: str) -> tuple[tuple[str, ...], Hole | None]:
        request = asker.request(Task("a", "fim", "java", **task))  # type: ignore[arg-type]
        assert request is not None
        return request.params.stop, request.hole

    after = "\n    return value;\n}\n"
    hole = Hole("    int value =", after, "int f() {")
    prefix = "int f() {\n    int value ="
    assert ends(answer="hole", prefix=prefix, suffix=after) == (("\n```",), hole)
    assert ends(answer="rest", prefix="// A file.\n") == (("\n```",), None)
    assert ends(answer="talk", request="How?") == ((), None)


def test_a_hole_is_asked_for_as_at_a_cursor() -> None:
    asker = Asker(tokenizer(), ROOM, Draws())
    task = Task("a", "fim", "python", "hole", prefix="x = 1\nif", suffix="\ny = 2\n")
    request = asker.request(task)
    assert request is not None
    asked = fim.at_cursor(FIM, tokenizer(), task.prefix, task.suffix)
    assert (request.prompt, request.begun) == asked and bytes(request.begun) == b"if"


def test_a_failure_gives_up_what_still_runs(tmp_path: Path) -> None:
    def failing(_: object) -> tuple[str, bool]:
        raise KeyboardInterrupt

    engine = ScriptedEngine(failing)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "a.xz", engine, 100)
    assert len(engine.aborted) == 4


def test_texts_lead_to_holes_edits_and_tests(tmp_path: Path) -> None:
    def script(request: Any) -> tuple[str, bool]:
        number = request.id.split("-")[3]
        if request.id.endswith("-0"):
            return f"    # filled in {number}", True
        code = "\n\n".join(f"def f{number}_{i}(x):\n    return x * {i}\n" for i in range(5))
        return (code if request.id.count("-") == 3 else f"```python\n# {number}\n{code}```"), True

    engine = ScriptedEngine(script, piece=400)
    forms: tuple[Form, ...] = ("fim", "edit", "tests")
    asker = Asker(tokenizer(), ROOM, Draws())
    files = (task for task in roots("python", forms) if task.prefix.endswith('"""\n\n'))
    with RawAnswers(tmp_path / "a.xz") as answers:
        maker = Maker(answers, Judge(KnownText()), Wanted(forms, itertools.islice(files, 30)))
        list(write(engine, asker, maker, "m", together=4, enough=lambda: False))  # type: ignore[arg-type]
    made = Counter(sample.form for sample in maker.samples)
    assert set(made) == set(forms)  # the files that they are made from are steps
    assert made["edit"] > 3 and made["tests"] > 3


def test_a_model_says_what_it_cannot_write() -> None:
    plain = Asker(tokenizer(template=None), PLAIN, Draws())
    assert set(plain.cannot) == {"chat", "tests", "edit", "fim"}
    assert Asker(tokenizer(), ROOM, Draws()).cannot == {}


def test_a_task_that_does_not_fit_is_passed_over() -> None:
    asker = Asker(tokenizer(), PLAIN, Draws())
    assert asker.context == 256
    assert asker.request(Task("a", "file", "python", "rest", prefix="x" * 300)) is None
    asker = Asker(tokenizer(), PromptSpec(fim=FIM, context_length=400), Draws())
    request = asker.request(Task("a", "fim", "python", "hole", prefix="x = ", suffix="\n"))
    assert request is not None and request.prompt[0] > 255 and request.params.max_tokens == 192


def test_rows_are_text_to_learn_from(tmp_path: Path) -> None:
    maker = run(tmp_path / "a.xz", ScriptedEngine(body), 500)
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(sample.row()) + "\n" for sample in maker.samples))
    documents = list(JsonlSource(path, "all").documents(0))
    assert len(documents) == len(maker.samples)
    assert {document.text for document in documents} == {s.text for s in maker.samples}
    assert all(isinstance(d, Document) and d.tag == "python" for d in documents)


def write_code(root: Path) -> Path:
    root.mkdir()
    for n in range(40):
        (root / f"m{n}.py").write_text(
            f'"""Module {n}."""\n\n\nclass Store{n}:\n    """Keeps things."""\n\n'
            f"    def put(self, thing):\n        self.last = thing\n        return {n}\n\n"
            f"    def get(self):\n        found = self.last\n        return found\n"
        )
        (root / f"p{n}.ts").write_text("const x: number = 1;\n" * 20)
    return root


def test_the_users_code_gives_tasks(tmp_path: Path) -> None:
    root = write_code(tmp_path / "code")
    tasks = list(code_tasks(root, "python", FORMS, 0))
    assert tasks == list(code_tasks(root, "python", FORMS, 0))
    assert len({task.id for task in tasks}) == len(tasks)
    forms = Counter(task.form for task in tasks)
    assert forms["fim"] > 60 and forms["function"] > 40 and forms["file"] > 20
    assert forms["edit"] + forms["tests"] > 20
    assert len({task.parent for task in tasks}) < 40  # an eighth is left out
    assert {task.form for task in code_tasks(root, "python", ("fim",), 0)} == {"fim"}
    assert list(code_tasks(root, "javascript", FORMS, 0)) == []  # TypeScript is not read here
    with pytest.raises(CalibrationError, match="has no java files"):
        list(code_tasks(root, "java", FORMS, 0))


def test_a_hole_in_a_part_of_a_file_knows_the_rest(tmp_path: Path) -> None:
    root = tmp_path / "code"
    root.mkdir()
    methods = "".join(
        f"    def method_{n}(self, value):\n        half = value / {n + 1}\n        return half\n\n"
        for n in range(60)
    )
    for n in range(2):
        (root / f"a{n}.py").write_text(f"class Long{n}:\n{methods}")
    inside = [task for task in code_tasks(root, "python", ("fim",), 0) if task.before]
    assert inside
    for task in inside:
        assert f"{task.before}{task.prefix}".startswith("class Long")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"language": "cobol"}, "text is made in python, java"),
        ({"tokens": None}, "say --tokens or --for"),
        ({"out": Path("a.txt")}, r"does not end in \.jsonl"),
        ({"seeds": Path("/nowhere")}, "is no directory"),
    ],
)
def test_bad_options(changed: dict[str, Any], message: str) -> None:
    given = {"language": "python", "out": Path("a.jsonl"), "problems": (), "tokens": 100}
    with pytest.raises(UsageError, match=message):
        check(MakeOptions(**{**given, **changed}))


def test_a_file_of_somebody_else_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"text": "x"}\n')
    with pytest.raises(UsageError, match="was not made here; give another --out"):
        check(MakeOptions("python", path, (), tokens=10))


def test_a_record_lies_beside_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    made = Made(path, "java", "m", {"fim": 2}, {"fim": 30}, {"cut": 1}, 3, 45, 20, 1.5)
    assert (answers_path(path).name, made_path(path).name) == ("a.answers.xz", "a.made.json")
    with pytest.raises(UsageError, match=r"was not made by 'subllm data make': a\.made\.json"):
        read(path)
    made_path(path).write_bytes(made.record())
    assert read(path) == Made(path, "java", "m", {"fim": 2}, {"fim": 30}, {"cut": 1}, 3, 45)
    made_path(path).write_text("{")
    with pytest.raises(TableError, match="writes it anew"):
        read(path)
