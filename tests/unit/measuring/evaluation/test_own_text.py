"""Text of a user's own: which lines are asked for, and what is counted."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from oracles.tiny_models import tokenizer

from subllm.engine.request import SamplingParams
from subllm.making.calibration.source import Document
from subllm.measuring.evaluation.generate import Ask, generate
from subllm.measuring.evaluation.own_text import (
    _MAX_TOKENS,
    OwnText,
    _fitting,
    _holes,
    measure_own_text,
)
from subllm.measuring.evaluation.problems import INFILL, Problem
from subllm.measuring.evaluation.prompts import Prompter
from subllm.measuring.evaluation.stops import OneLine
from subllm.models.catalog.prompt import FimSpec, PromptSpec
from subllm.progress import NullProgress

from .test_text_measures import (  # noqa: F401 (fixtures)
    MODEL,
    TOKENS,
    Exact,
    logits,
    models,
    open_engine,
)

CODE = """import math

# a circle
def area(radius):
    return math.pi * radius**2


)
    total = {wide}
def double(value):
    return value * 2
""".format(wide="1" * 100)
FIM = PromptSpec(
    fim=FimSpec(prefix="<|mark|>", suffix="<|fill|>", middle="<|mark|><|fill|>"), context_length=256
)


def test_lines_that_can_be_told_from_what_is_around_them() -> None:
    documents = [Document("a.py", CODE), Document("b", turns=(("user", CODE),))]
    found = list(_holes(documents, "python"))
    assert found == list(_holes(documents, "python"))
    assert {problem.canonical for problem in found} == {
        "def area(radius):\n",
        "    return math.pi * radius**2\n",
        "def double(value):\n",
        "    return value * 2\n",
    }
    for problem in found:
        assert problem.prompt + (problem.canonical or "") + problem.suffix == CODE
        assert problem.kind == INFILL and problem.language == "python"
    assert len({problem.id for problem in found}) == 4


def test_what_is_around_a_line_is_cut_to_the_model_s_context() -> None:
    prompter = Prompter(tokenizer(), FIM, "fim")
    lines = [f"line {i}\n" for i in range(64)]
    problem = Problem(
        "SingleLine/1", "python", INFILL, "".join(lines[:40]), "", "", suffix="".join(lines[41:])
    )
    whole = _fitting(problem, prompter, 10_000)
    assert whole is not None and whole[0] == problem
    cut = _fitting(problem, prompter, 200)
    assert cut is not None and len(cut[1]) <= 200
    assert cut[0].prompt == "".join(lines[40 - len(cut[0].prompt.splitlines()) : 40])
    assert cut[0].suffix.startswith(lines[41])
    assert _fitting(problem, prompter, 1) is None


def test_figures(models: dict[str, Any], open_engine: Exact, tmp_path: Path) -> None:  # noqa: F811
    """Perplexity as of transformers; of two lines, the one that the model writes is exact."""
    prompt = tuple(TOKENS[0].tolist())
    engine = open_engine(MODEL, 1, len(prompt) + _MAX_TOKENS)
    ask = Ask("it", prompt, SamplingParams(max_tokens=_MAX_TOKENS), OneLine(""))
    (answer,) = generate(engine, [ask], 1)
    holes = tuple(
        (Problem(name, "python", INFILL, "", "", "", canonical=line), prompt, ())
        for name, line in (("one", f"  {answer.text.strip()}\n"), ("other", "something else"))
    )
    figures = measure_own_text(open_engine, MODEL, OwnText(TOKENS, holes, "fim"), NullProgress())
    assert (figures.exact, figures.holes) == (1, 2)
    nll = 0.0
    for row in TOKENS.tolist():
        log_p = logits(models[MODEL], row).log_softmax(-1)
        nll -= sum(float(log_p[i, token]) for i, token in enumerate(row[1:]))
    assert figures.tokens == TOKENS[:, 1:].size
    assert figures.perplexity == pytest.approx(math.exp(nll / figures.tokens), rel=1e-4)
