"""Prompts: only templates and markers put special tokens in, never a problem's text."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from oracles.tiny_models import END, FILL, MARK, tokenizer

from subllm.errors import UsageError
from subllm.measuring.evaluation.forms import problem_of
from subllm.measuring.evaluation.problems import Problem
from subllm.measuring.evaluation.prompts import Prompter, chat_message, choose_form
from subllm.models.catalog.prompt import FimSpec, PromptSpec
from subllm.models.text.tokenizer import Tokenizer

from .benchmarks import HUMANEVAL, HUMANEVAL_X, INFILLING, MBPP

PLAIN = tokenizer()
FIM = FimSpec(prefix="<|mark|>", suffix="<|fill|>", middle="<|end|>")
SPEC = PromptSpec(context_length=64, fim=FIM)


def chatty() -> Tokenizer:
    """The tiny tokenizer with a chat template."""
    bundle = json.loads(PLAIN.to_bundle())
    files = {
        "tokenizer.json": bundle["tokenizer"].encode(),
        "tokenizer_config.json": json.dumps(
            {
                "eos_token": "<|end|>",
                "chat_template": "{% for m in messages %}<|mark|>{{ m.content }}<|end|>"
                "{% endfor %}<|fill|>",
            }
        ).encode(),
    }
    return Tokenizer.from_files(files)


def problem(form: str, row: dict[str, object]) -> Problem:
    made = problem_of(form, row)
    assert made is not None
    return made


ADD, CPP = problem("humaneval", HUMANEVAL), problem("humaneval-x", HUMANEVAL_X)
HOLE, TASK = problem("infilling", INFILLING), problem("mbpp", MBPP)


def test_raw_is_the_text_as_it_is() -> None:
    prompter = Prompter(PLAIN, SPEC, "raw")
    assert prompter.ids(ADD) == (tuple(ADD.prompt.encode()), ())
    spelled = replace(ADD, prompt="<|end|>")
    assert prompter.ids(spelled) == (tuple(b"<|end|>"), ())
    assert prompter.ids(CPP) == (tuple(CPP.prompt.encode()), ())  # not the headers put before


def test_chat_shows_the_function() -> None:
    ids, begun = Prompter(chatty(), SPEC, "chat").ids(ADD)
    assert begun == ()
    assert (ids[0], ids[-2], ids[-1]) == (MARK, END, FILL)
    said = bytes(ids[1:-2]).decode()
    assert said == chat_message(ADD)
    assert said.startswith("Complete this Python function.")
    assert said.endswith(f"```python\n{ADD.prompt.rstrip()}\n```")
    assert "C++ function" in chat_message(CPP)


def test_chat_gives_a_task_in_words() -> None:
    said = chat_message(TASK)
    assert said.startswith("Write Python code for this task.")
    assert said.endswith(
        "Write a function to add.\nassert add(1, 2) == 3\nassert add(0, 0) == ZERO"
    )


def test_holes_stand_between_markers() -> None:
    prompter = Prompter(PLAIN, SPEC, "fim")
    text = HOLE.prompt.encode()
    assert prompter.ids(replace(HOLE, suffix="")) == ((MARK, *text, FILL, END), ())
    # As a server lays it out: the last lines before the cursor behind the last marker.
    begun = replace(HOLE, prompt=f"{HOLE.prompt}    ret", suffix="<|end|>")
    ids = (MARK, FILL, *b"<|end|>", END, *text, *b"   ")
    assert prompter.ids(begun) == (ids, tuple(b" ret"))
    assert "at the cursor" in prompter.facts and not Prompter(PLAIN, SPEC, "raw").facts


def test_form_is_chosen_by_problem_and_model() -> None:
    assert choose_form("auto", ADD, PLAIN) == "raw"
    assert choose_form("auto", ADD, chatty()) == "chat"
    assert choose_form("raw", ADD, chatty()) == "raw"
    assert choose_form("chat", HOLE, chatty()) == "fim"


def test_what_a_model_does_not_have() -> None:
    with pytest.raises(UsageError, match="no chat template"):
        Prompter(PLAIN, SPEC, "chat")
    with pytest.raises(UsageError, match="no fill-in-the-middle markers"):
        Prompter(PLAIN, PromptSpec(context_length=64), "fim")
