"""The built-in problems: their own solutions pass, and a wrong one does not."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from subllm.errors import BenchmarkError, ToolchainMissingError
from subllm.measuring.evaluation.builtin import BUILTIN, LANGUAGES, builtin_benchmark, ideas
from subllm.measuring.evaluation.data import load_benchmark
from subllm.measuring.evaluation.measures.retention import what_is_left
from subllm.measuring.evaluation.programs import program_of
from subllm.measuring.evaluation.sandbox import Sandbox
from subllm.measuring.evaluation.toolchains import toolchain

from .sandboxes import sandbox_or_skip

_NOTHING = {
    "python": "    return -5\n",
    "java": "        return -5;\n    }\n}\n",
    "cpp": "    return -5;\n}\n",
    "javascript": "  return -5;\n}\n",
}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with sandbox_or_skip() as sandbox:
        yield sandbox


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_solution_passes_as_a_model_would_have_written_it(
    sandbox: Sandbox, language: str
) -> None:
    try:
        tool = toolchain(language, sandbox)
    except ToolchainMissingError as error:
        pytest.skip(f"NO TOOL CHAIN: {error}")
    task, benchmark = load_benchmark(BUILTIN, language)
    assert (task, len(benchmark.problems)) == (BUILTIN, 40)
    # As a model writes on: what follows must be cut off.
    written = {p.id: program_of(p, f"{p.canonical}\n\n", "raw") for p in benchmark.problems}
    nothing = benchmark.problems[0].program(_NOTHING[language])

    def check(program: str) -> str:
        verdict = tool.check(program, wall_seconds=60.0)
        return f"{verdict.status} {verdict.detail}".strip()

    with ThreadPoolExecutor(2) as pool:
        verdicts = dict(zip(written, pool.map(check, written.values()), strict=True))
    assert {one: said for one, said in verdicts.items() if not said.startswith("passed")} == {}
    assert not check(nothing).startswith("passed")


def test_tests_tell_solutions_apart() -> None:
    """Every idea has four cases at least, no two alike, and no constant answers them all."""
    for idea in ideas():
        assert len({str(test[:-1]) for test in idea.tests}) == len(idea.tests) >= 4, idea.name
        assert len({str(test[-1]) for test in idea.tests}) > 1, idea.name


@pytest.mark.parametrize(
    ("language", "shown"),
    [
        ("python", ">>> join_path(['home', 'ann'])\n    '/home/ann'\n"),
        ("java", '>>> joinPath(new String[] {"home", "ann"})\n     * "/home/ann"\n'),
        ("cpp", '>>> join_path({"home", "ann"})\n * "/home/ann"\n'),
        ("javascript", '>>> joinPath(["home", "ann"])\n * "/home/ann"\n'),
    ],
)
def test_prompts_show_examples_as_doctests_do(language: str, shown: str) -> None:
    (asked,) = (p for p in builtin_benchmark(language).problems if p.id.endswith("/join_path"))
    assert shown in asked.prompt
    assert asked.prompt.count(">>>") == 3
    assert all(p.prompt.count(">>>") == 3 for p in builtin_benchmark(language).problems)


def test_ideas_are_one_in_all_languages() -> None:
    names = {
        tuple(p.id.split("/")[2] for p in builtin_benchmark(one).problems) for one in LANGUAGES
    }
    assert len(names) == 1
    assert len(set(names.pop())) == 40
    assert len({builtin_benchmark(one).digest for one in LANGUAGES}) == 4


def test_data_of_ones_own_is_refused() -> None:
    with pytest.raises(BenchmarkError, match="leave --data out"):
        load_benchmark(BUILTIN, "python", [Path("x.jsonl")])


def test_what_is_left_of_the_dense_base() -> None:
    left = what_is_left("b-dense", (0.2, {"p": 1, "q": 2}), (0.5, {"q": 1, "r": 1, "s": 0}))
    assert left == {
        "dense": "b-dense",
        "dense_pass": 0.5,
        "dense_solved": 2,
        "ratio": 0.4,
        "kept": 0.5,
    }
    nothing = what_is_left("b-dense", (0.2, {"p": 1}), (0.0, {}))
    assert (nothing["ratio"], nothing["kept"]) == (None, None)
