"""The forms in which code benchmarks come: a row of each as a `Problem`.

HumanEval     task_id prompt entry_point canonical_solution test            Python
HumanEval-X   task_id prompt declaration canonical_solution test            by task_id
infilling     task_id prompt suffix canonical_solution test [entry_point]   by language
MBPP          task_id text code test_list [test_setup_code]                 Python
MultiPL-E     name prompt tests stop_tokens [language]                      by language
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from subllm.errors import BenchmarkError
from subllm.languages import canonical
from subllm.measuring.evaluation.problems import FUNCTION, INFILL, PROGRAM, Problem

Row = Mapping[str, Any]

# As the authors of HumanEval-X run it: headers that a solution may use and its prompt
# does not include.
_CPP_HEADERS = (
    "stdlib.h",
    "algorithm",
    "cmath",
    "math.h",
    "stdio.h",
    "vector",
    "string",
    "climits",
    "cstring",
    "iostream",
)
# The usual ones for this data: what follows the functions asked for.
_MBPP_STOPS = ("\nclass", "\nassert", '\n"""', "\nprint", "\nif", "\n```")
_MBPP_TEST_SPLIT = range(11, 511)


def form_of(row: Row) -> str:
    """Which form a row has, by its fields. Raises BenchmarkError for none."""
    for form, (fields, _) in _FORMS.items():
        if fields <= row.keys():
            return form
    raise BenchmarkError(
        f"a row with the fields {', '.join(sorted(row)) or '(none)'} is of no known form; "
        "known are those of HumanEval, HumanEval-X, MBPP, MultiPL-E and HumanEval-infilling"
    )


def problem_of(form: str, row: Row) -> Problem | None:
    """The row's problem; None for a row that is not part of the test.

    Raises BenchmarkError for a field that is missing or of another type.
    """
    return _FORMS[form][1](row)


def _humaneval(row: Row) -> Problem:
    prompt, entry = _text(row, "prompt"), _text(row, "entry_point")
    return Problem(
        id=_text(row, "task_id"),
        language="python",
        kind=FUNCTION,
        prompt=prompt,
        head=prompt,
        test=f"{_text(row, 'test')}\ncheck({entry})\n",
        canonical=_text(row, "canonical_solution"),
        entry=entry,
    )


def _humaneval_x(row: Row) -> Problem:
    identity, prompt = _text(row, "task_id"), _text(row, "prompt")
    language = canonical(identity.partition("/")[0])
    head = prompt
    if language == "cpp":
        missing = [name for name in _CPP_HEADERS if not _includes(prompt, name)]
        head = "".join(f"#include<{name}>\n" for name in missing) + prompt
    return Problem(
        id=identity,
        language=language,
        kind=FUNCTION,
        prompt=prompt,
        head=head,
        test=_text(row, "test"),
        canonical=_text(row, "canonical_solution"),
    )


def _infilling(row: Row) -> Problem:
    prompt, entry = _text(row, "prompt"), row.get("entry_point")
    test = _text(row, "test")
    if isinstance(entry, str) and "check(candidate)" in test:
        test += f"\ncheck({entry})\n"
    return Problem(
        id=_text(row, "task_id"),
        language=canonical(str(row.get("language") or "python")),
        kind=INFILL,
        prompt=prompt,
        head=prompt,
        suffix=_text(row, "suffix"),
        test=test,
        canonical=_text(row, "canonical_solution"),
        entry=entry if isinstance(entry, str) else "",
    )


def _mbpp(row: Row) -> Problem | None:
    identity = row["task_id"]
    if isinstance(identity, int) and identity not in _MBPP_TEST_SPLIT:
        return None
    tests = _texts(row, "test_list")
    setup = [*_texts(row, "test_imports"), str(row.get("test_setup_code") or "")]
    head = "".join(f"{line}\n" for line in setup if line)
    task = _text(row, "text" if "text" in row else "prompt").strip()
    asked = "{}\n{}".format(task, "\n".join(tests))
    code = _text(row, "code").replace("\r\n", "\n")
    return Problem(
        id=f"MBPP/{identity}",
        language="python",
        kind=PROGRAM,
        prompt=f'"""\n{asked}\n"""\n',
        asked=asked,
        head=head,
        test="\n".join(tests) + "\n",
        canonical=code,
        stops=_MBPP_STOPS,
    )


def _multipl_e(row: Row) -> Problem:
    prompt, name = _text(row, "prompt"), _text(row, "name")
    return Problem(
        id=name,
        language=canonical(str(row.get("language") or "python")),
        kind=FUNCTION,
        prompt=prompt,
        head=prompt,
        test=_text(row, "tests"),
        stops=_texts(row, "stop_tokens"),
    )


_FORMS: dict[str, tuple[set[str], Callable[[Row], Problem | None]]] = {
    "infilling": ({"task_id", "prompt", "suffix", "canonical_solution", "test"}, _infilling),
    "humaneval": ({"task_id", "prompt", "entry_point", "canonical_solution", "test"}, _humaneval),
    "humaneval-x": (
        {"task_id", "prompt", "declaration", "canonical_solution", "test"},
        _humaneval_x,
    ),
    "mbpp": ({"task_id", "code", "test_list"}, _mbpp),
    "multipl-e": ({"name", "prompt", "tests", "stop_tokens"}, _multipl_e),
}


FORMS = tuple(_FORMS)


def _text(row: Row, field: str) -> str:
    value = row.get(field)
    if not isinstance(value, str):
        raise BenchmarkError(f"its {field!r} is {'missing' if value is None else 'no text'}")
    return value


def _texts(row: Row, field: str) -> tuple[str, ...]:
    value = row.get(field) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BenchmarkError(f"its {field!r} is no list of texts")
    return tuple(value)


def _includes(prompt: str, header: str) -> bool:
    compact = prompt.replace(" ", "")
    return f"#include<{header}>" in compact
