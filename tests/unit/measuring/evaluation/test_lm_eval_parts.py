"""The harness's generation options, and the file of answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from subllm.errors import BenchmarkError, StoreError
from subllm.measuring.evaluation.lm_eval.answers import AnswerCache
from subllm.measuring.evaluation.lm_eval.options import sampling


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (0.0, 256, ())),
        ({"until": "\n", "max_gen_toks": 9}, (0.0, 9, ("\n",))),
        ({"until": ["a", "b"], "max_new_tokens": 9}, (0.0, 9, ("a", "b"))),
        ({"max_tokens": 5, "max_gen_toks": 9}, (0.0, 9, ())),  # the harness's own order
        ({"do_sample": False, "temperature": 0.7}, (0.0, 256, ())),
        ({"do_sample": True}, (1.0, 256, ())),
        ({"do_sample": True, "temperature": 0.7}, (0.7, 256, ())),
        ({"temperature": 0.7}, (0.7, 256, ())),
        ({"temperature": 0.0, "until": None}, (0.0, 256, ())),
    ],
)
def test_options(options: dict[str, Any], expected: tuple[Any, ...]) -> None:
    params = sampling(options, seed=3)
    assert (params.temperature, params.max_tokens, params.stop) == expected
    assert params.seed == 3


def test_filters_are_passed_on_and_nothing_is_dropped() -> None:
    params = sampling({"do_sample": True, "top_p": 0.9, "top_k": 5, "min_p": 0.1}, 0)
    assert (params.top_p, params.top_k, params.min_p) == (0.9, 5, 0.1)
    with pytest.raises(BenchmarkError, match="option 'num_beams' is unknown here"):
        sampling({"num_beams": 2, "until": "x"}, 0)


def test_an_answer_belongs_to_its_question_and_model(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "answers.sqlite"
    with AnswerCache(path, "m1") as first, AnswerCache(path, "m2") as other:
        assert first.get({"tokens": (1, 2)}) is None
        first.put({"tokens": (1, 2)}, [-1.5, True])
        first.put({"prompt": "é"}, "text\n")
        assert first.get({"tokens": (1, 2)}) == [-1.5, True]
        assert first.get({"tokens": (1, 2, 3)}) is None
        assert other.get({"tokens": (1, 2)}) is None
    with AnswerCache(path, "m1") as again:
        assert again.get({"prompt": "é"}) == "text\n"


KILLED = """
import os, sys
from pathlib import Path
from subllm.measuring.evaluation.lm_eval.answers import AnswerCache
cache = AnswerCache(Path(sys.argv[1]), "m")
for number in range(50):
    cache.put({"n": number}, number + 1)
os.kill(os.getpid(), 9)
"""


def test_answers_outlive_a_killed_process(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -9
    with AnswerCache(path, "m") as cache:
        assert [cache.get({"n": number}) for number in range(50)] == list(range(1, 51))


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    path.write_bytes(b"not a database, but long enough to be one" * 50)
    with pytest.raises(StoreError, match=r"answers\.sqlite is no file of answers .*delete it"):
        AnswerCache(path, "m")
