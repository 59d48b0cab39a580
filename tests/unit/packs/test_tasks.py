from __future__ import annotations

import json
from pathlib import Path

import pytest
from answers import end_line, read_answers, rotation
from tasks import COUNTS, LANGUAGES, tasks

from subllm.making.textmaking.subjects import SUBJECTS, TOPICS


@pytest.mark.parametrize("language", LANGUAGES)
def test_tasks_are_unique_and_a_prefix_of_any_longer_list(language: str) -> None:
    made = tasks(language, 400)
    assert len(made) == 400
    assert len({task.id for task in made}) == 400
    assert len({task.instruction for task in made}) == 400
    assert tasks(language, 50) == made[:50]
    assert tasks(language, 400, seed=1) != made
    assert all(task.tag for task in made if task.answer == "code")


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_subject_occurs_in_both_splits(language: str) -> None:
    made = tasks(language, 2000)
    for subject in (*SUBJECTS, *TOPICS):
        assert len({task.split for task in made if subject in task.instruction}) <= 1
    heldout = sum(task.split == "heldout" for task in made)
    assert 0.14 < heldout / len(made) < 0.19


def test_the_request_bounds_the_answer_and_the_instruction_does_not() -> None:
    for task in tasks("general", 8) + tasks("java", 4):
        assert task.request.startswith(task.instruction)
        assert ("at most 50 lines" if task.answer == "code" else "at most 200 words") in (
            task.request
        )


def test_rotation_brings_all_languages_forward_together() -> None:
    order = rotation(COUNTS, 0)
    assert len(order) == sum(COUNTS.values())
    half = [task.language for _, task in order[: len(order) // 2]]
    for language, count in COUNTS.items():
        assert abs(half.count(language) - count / 2) <= 1


def test_numbers_of_tasks_do_not_depend_on_the_counts() -> None:
    few = {task.id: number for number, task in rotation(dict.fromkeys(LANGUAGES, 5), 0)}
    many = {task.id: number for number, task in rotation(COUNTS, 0)}
    assert few.items() <= many.items()
    assert len(set(many.values())) == len(many)


def test_answers_of_all_workers_are_read_but_unfinished_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = {"id": "a", "text": "x\u2028y"}, {"id": "b", "text": "z"}
    (tmp_path / "worker-0.jsonl").write_text(json.dumps(first, ensure_ascii=False) + "\n")
    (tmp_path / "worker-1.jsonl").write_text(json.dumps(second) + '\n{"id": "c", "te')
    assert read_answers(tmp_path) == {"a": first, "b": second}
    end_line(tmp_path / "worker-1.jsonl")
    end_line(tmp_path / "worker-0.jsonl")
    with (tmp_path / "worker-1.jsonl").open("a") as file:
        file.write(json.dumps({"id": "d"}) + "\n")
    assert set(read_answers(tmp_path)) == {"a", "b", "d"}
    assert "unfinished" in capsys.readouterr().err
    assert (tmp_path / "worker-0.jsonl").read_text().count("\n") == 1
