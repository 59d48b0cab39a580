"""Raw answers on disk: they only grow, and a kill costs the last ones at most."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from subllm.errors import DiskFullError, TableError
from subllm.making.textmaking import raw_answers
from subllm.making.textmaking.raw_answers import RawAnswer, RawAnswers
from subllm.making.textmaking.tasks import Task


def answer(number: int) -> RawAnswer:
    task = Task(f"t{number}", "fim", "python", "hole", prefix="a\n", suffix="é\u2028", parent="p")
    return RawAnswer(task, "m", number % 2 == 0, number, f"text {number}\u2028\n")


def test_answers_come_back_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.xz"
    for run in range(3):
        with RawAnswers(path) as answers:
            assert list(answers) == [answer(n) for n in range(2 * run)]
            for n in range(2 * run, 2 * run + 2):
                answers.append(answer(n))
    assert lzma.decompress(path.read_bytes()).count(b"\n") == 6  # as xz -dc shows it
    assert b'"outer"' not in lzma.decompress(path.read_bytes())


def test_what_a_killed_run_left_unfinished_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "a.xz"
    with RawAnswers(path) as answers:
        answers.append(answer(0))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    with RawAnswers(path) as answers:
        assert list(answers) == [answer(0)]
        answers.append(answer(1))
    assert list(RawAnswers(path)) == [answer(0), answer(1)]


@pytest.mark.parametrize("data", [b"text\n", lzma.compress(b'{"id": 1}\n'), lzma.compress(b"x\n")])
def test_another_file_is_left_as_it_is(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.xz"
    path.write_bytes(data)
    with pytest.raises(TableError, match="holds no answers"):
        RawAnswers(path)
    assert path.read_bytes() == data


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_no_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    path = tmp_path / "a.xz"
    with RawAnswers(path) as answers:
        answers.append(answer(0))
    answers.append(answer(1))
    real = Path.open

    class Torn:
        def __init__(self, file: object) -> None:
            self.file = file

        def __enter__(self) -> Torn:
            self.file.__enter__()
            return self

        def __exit__(self, *caught: object) -> None:
            self.file.__exit__(*caught)

        def write(self, data: bytes) -> None:
            self.file.write(data[:20])
            self.file.flush()
            raise error

    def torn(self: Path, mode: str = "r", *rest: object) -> object:
        opened = real(self, mode, *rest)
        return Torn(opened) if mode == "ab" else opened

    monkeypatch.setattr(Path, "open", torn)
    with pytest.raises((DiskFullError, KeyboardInterrupt)):
        answers.flush()
    monkeypatch.undo()
    answers.flush()  # what could not be written is tried again
    assert list(RawAnswers(path)) == [answer(0), answer(1)]
    assert raw_answers.SUFFIX.endswith(".xz")
