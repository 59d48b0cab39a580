"""Tasks: drawn by a seed, each once, of the forms that are wanted."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from subllm.making.textmaking.beginnings import beginnings, languages
from subllm.making.textmaking.subjects import SUBJECTS
from subllm.making.textmaking.tasks import (
    FORMS,
    LANGUAGES,
    MOST_TOKENS,
    Form,
    Task,
    body_task,
    derived,
    own_tasks,
    roots,
)

CODE = '''"""Count things."""


def count(things):
    """How many there are of each."""
    found = {}
    for thing in things:
        found[thing] = found.get(thing, 0) + 1
    return found
'''


def some(language: str, forms: tuple[Form, ...] = FORMS, seed: int = 0) -> list[Task]:
    return list(itertools.islice(roots(language, forms, seed), 600))


@pytest.mark.parametrize("language", languages())
def test_beginnings_are_drawn_by_a_seed_and_each_is_another(language: str) -> None:
    first = list(itertools.islice(beginnings(language), 500))
    assert first == list(itertools.islice(beginnings(language), 500))
    assert first != list(itertools.islice(beginnings(language, seed=8), 500))
    assert len({one.id for one in first}) == len({one.text for one in first}) == 500
    said = sum(any(mark in one.text for mark in ('"""', "/*", "// ")) for one in first) / 500
    assert 0.6 < said < 0.8
    assert {one.text.count("{") - one.text.count("}") for one in first} <= {
        one.outer for one in first
    } | {one.outer + 1 for one in first}


def test_python_imports_what_its_signatures_say() -> None:
    for one in itertools.islice(beginnings("python"), 300):
        assert ("List[" in one.text) == ("import List" in one.text) or "Tuple" in one.text


@pytest.mark.parametrize("language", LANGUAGES)
def test_roots_are_unique_and_the_same_for_the_same_seed(language: str) -> None:
    first = some(language)
    assert first == some(language) != some(language, seed=1)
    assert len({task.id for task in first}) == len(first) == 600
    forms = Counter(task.form for task in first)
    assert forms["file"] > 100 and forms["function"] > 100 and forms["chat"] > 100
    assert all(task.answer in MOST_TOKENS and (task.prefix or task.request) for task in first)
    assert not any(task.step for task in first)


def test_nothing_is_about_what_packs_hold_out() -> None:
    held_out = SUBJECTS[5::6]
    told = "".join(f"{task.instruction}\n{task.prefix}\n" for task in some("python", ("chat",)))
    assert held_out and not any(subject in told for subject in held_out)


def test_forms_that_need_a_text_get_files_as_steps() -> None:
    tasks = some("java", ("fim", "tests"))
    assert {(task.form, task.step) for task in tasks} == {("file", True)}
    assert {task.form for task in some("java", ("function",))} == {"function"}
    assert {task.form for task in some("general", ("function",))} == {"function"}
    assert sum(task.answer == "prose" for task in some("general")) > 80


def test_what_follows_from_a_text() -> None:
    sources = [Task(f"python-0-file-{n:05d}", "file", "python", "rest") for n in range(40)]
    made = [derived(source, CODE, FORMS) for source in sources]
    forms = Counter(task.form for tasks in made for task in tasks)
    assert forms["fim"] == 40 and forms["edit"] + forms["tests"] == 40
    assert forms["edit"] > 8 and forms["tests"] > 8
    for tasks in made:
        (hole,) = (task for task in tasks if task.form == "fim")
        assert CODE.startswith(hole.prefix) and CODE.endswith(hole.suffix)
        assert len(hole.prefix + hole.suffix) < len(CODE)
        (other,) = (task for task in tasks if task.form != "fim")
        assert CODE in other.instruction and other.request.startswith(other.instruction)
        assert {task.parent for task in tasks} == {hole.parent}
    assert {task.form for task in derived(sources[0], CODE, ("fim",))} == {"fim"}
    assert derived(made[0][0], CODE, FORMS) == []  # nothing follows from what followed


def test_what_is_asked_about_the_users_code() -> None:
    source = Task("own-1", "file", "python", "rest")
    tasks = own_tasks(source, CODE, FORMS)
    assert Counter(task.form for task in tasks)["fim"] == 3
    (file,) = (task for task in tasks if task.form == "file")
    assert CODE.startswith(file.prefix) and file.prefix.endswith("\n")
    assert len({task.id for task in tasks}) == len(tasks)
    function = body_task(source, CODE.split("\n\n\n")[1])
    assert function is not None and function.prefix.endswith('of each."""\n')
    assert body_task(source, "def f(a): return a\n") is None
