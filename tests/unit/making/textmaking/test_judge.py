"""Which answers are kept, as what, and why others are not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from subllm.making.textmaking.judge import Judge
from subllm.making.textmaking.known import KnownText
from subllm.making.textmaking.raw_answers import RawAnswer
from subllm.making.textmaking.tasks import Task

BODY = """    found = {}
    for thing in things:
        found[thing] = found.get(thing, 0) + 1
    return found
"""
CODE = f"import os\n\n\ndef count(things):\n{BODY}"
FUNCTION = Task("f", "function", "python", "body", prefix="def count(things):\n")
FILE = Task("r", "file", "python", "rest", prefix="import os\n\n\n")
CHAT = Task("c", "chat", "python", "block", instruction="Count things.", request="Count things!")
HOLE = Task("h", "fim", "python", "hole", prefix=CODE[:60], suffix=CODE[85:])
TALK = Task("t", "chat", "python", "talk", instruction="How?", request="How?")
WORDS = (
    "This keeps a number for every kind of thing. It looks at each of them in turn, and adds one "
    "to the number of its kind. At the end you have a table that says how many there are of each. "
    "It takes as long as there are things, and as much room as there are kinds of them. You can "
    "use it for words, for letters or for anything else that can be the key of a table.\n"
)


def judged(task: Task, text: str, ended: bool = True, judge: Judge | None = None) -> object:
    found = (judge or Judge(KnownText())).judge(RawAnswer(task, "m", ended, 9, text))
    return found if isinstance(found, str) else found.row()


def test_what_each_kind_of_answer_becomes() -> None:
    assert judged(FUNCTION, BODY) == {"id": "f", "text": FUNCTION.prefix + BODY, "fence": "python"}
    assert judged(FILE, CODE[12:] + "\n\n") == {"id": "r", "text": CODE, "fence": "python"}
    assert judged(CHAT, f"Here:\n```python\n{CODE}```\n") == {
        "id": "c", "instruction": "Count things.", "output": CODE, "fence": "python",
    }  # fmt: skip
    assert judged(HOLE, CODE[60:85]) == {
        "id": "h", "prefix": CODE[:60], "middle": CODE[60:85], "suffix": CODE[85:],
        "fence": "python",
    }  # fmt: skip
    talk = f"{WORDS}\n```python\n{CODE}```\n"
    assert judged(TALK, talk) == {"id": "t", "instruction": "How?", "output": talk}
    prose = replace(TALK, answer="prose", tag="")
    assert judged(prose, WORDS) == {"id": "t", "instruction": "How?", "output": WORDS}


@pytest.mark.parametrize(
    ("task", "text", "reason"),
    [
        (FUNCTION, BODY.replace("{}", "{"), "does not parse"),
        (FUNCTION, f"{BODY}\n\ndef other():\n    return 1\n", "no function"),
        (FUNCTION, "    pass\n", "placeholder"),
        (FUNCTION, BODY + "    # TODO: the rest\n", "placeholder"),
        (FUNCTION, BODY + "    # считает вещи\n", "not English"),
        (FUNCTION, BODY + "    # by Harper Lee\n", "person"),
        (FILE, "```", "fence in code"),
        (FILE, "x = 1\n", "too short"),
        (CHAT, CODE, "no code block"),
        (HOLE, " \n", "hollow"),
        (HOLE, "found[thing] = (", "does not parse"),
        (TALK, WORDS, "no code block"),
        (TALK, f"{WORDS}\n```python\ndef f(:\n```\n", "does not parse"),
        (replace(CHAT, form="edit", instruction=f"Change.\n```\n{CODE}```"),
         f"```python\n{CODE}```", "unchanged"),
    ],
)  # fmt: skip
def test_what_is_unfit(task: Task, text: str, reason: str) -> None:
    assert judged(task, text) == reason


def test_what_was_cut_is_left_out_but_for_whole_parts_of_files() -> None:
    for task in (FUNCTION, CHAT, TALK):
        assert judged(task, BODY, ended=False) == "cut"
    row = judged(FILE, CODE[12:] + "\n\ndef other(x):\n    y = [1,", ended=False)
    assert row == {"id": "r", "text": CODE, "fence": "python"}


def test_of_who_fills_a_hole_and_goes_on_the_first_line_is_kept() -> None:
    lines = CODE.splitlines(keepends=True)
    hole = replace(HOLE, prefix="".join(lines[:5]), suffix="".join(lines[6:]))
    row = judged(hole, f"{lines[5]}        and so on\n    and on", ended=False)
    assert isinstance(row, dict) and row["middle"] == lines[5]
    within = replace(hole, suffix="\n" + hole.suffix)
    row = judged(within, f"{lines[5]}        and so on", ended=False)
    assert isinstance(row, dict) and row["middle"] == lines[5].rstrip("\n")
    assert judged(hole, lines[5].rstrip("\n"), ended=False) == "hollow"  # half of a line


def test_functions_of_other_languages_end_with_their_brace() -> None:
    java = Task("j", "function", "java", "body", prefix="class A {\n    int f(int a) {\n", outer=1)
    body = "        int b = a + 1;\n        return b;\n    }\n"
    row = {"id": "j", "text": f"{java.prefix}{body}}}\n", "fence": "java"}
    # However much follows, and though it was the writer who was stopped.
    assert judged(java, f"{body}\n    int g() {{", ended=False) == row
    assert judged(java, "        int b = a + 1;\n", ended=True) == "cut"
    arrow = Task("a", "function", "javascript", "body", prefix="// Half.\n")
    text = "const half = (value) => value / 2;\n"
    assert judged(arrow, text) == {"id": "a", "text": "// Half.\n" + text, "fence": "javascript"}
    assert judged(arrow, text, ended=False) == "cut"


def test_a_hole_is_judged_in_its_whole_file() -> None:
    lines = CODE.splitlines(keepends=True)
    hole = Task(
        "h", "fim", "python", "hole", before="".join(lines[:4]), prefix="    found = {}\n",
        suffix="        found[thing] = 1\n    return found\n",
    )  # fmt: skip
    assert judged(hole, "    for thing in things:\n") != "does not parse"
    assert judged(replace(hole, before="(" + hole.before), "    for thing in things:\n") == (
        "does not parse"
    )


def test_what_the_user_wrote_is_no_matter_of_taste() -> None:
    own = replace(FILE, prefix='"""Zählt. Von Harper Lee, https://www.acme.com, для нас."""\n\n\n')
    assert isinstance(judged(own, CODE), dict)
    assert judged(own, CODE + "# by Harper Lee\n") == "person"


def test_nothing_comes_twice_but_what_is_made_from_it() -> None:
    judge = Judge(KnownText())
    assert isinstance(judged(FUNCTION, BODY, judge=judge), dict)
    assert judged(FUNCTION, BODY, judge=judge) == "near duplicate"
    assert judged(replace(FUNCTION, id="g", parent="f"), BODY, judge=judge) != "near duplicate"
    other = Judge(KnownText())
    other.know(FUNCTION.prefix + BODY)
    assert judged(FUNCTION, BODY, judge=other) == "near duplicate"


def test_benchmarks_are_looked_for_in_all_of_a_text() -> None:
    judge = Judge(KnownText([CODE]))
    assert judged(FUNCTION, BODY, judge=judge) == "benchmark overlap"
    assert judged(HOLE, CODE[60:85], judge=judge) == "benchmark overlap"
