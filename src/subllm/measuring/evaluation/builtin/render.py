"""A problem of problems.yaml as prompt, solution and test in one language."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from subllm.measuring.evaluation.problems import FUNCTION, Problem

_EXAMPLES = 3
_WIDTH = 84


@dataclass(frozen=True)
class Idea:
    """One problem in no language. params: name -> type. tests: arguments, then the result."""

    name: str
    doc: str
    params: Mapping[str, str]
    returns: str
    tests: Sequence[Sequence[Any]]
    solutions: Mapping[str, str]


@dataclass(frozen=True)
class _Style:
    """How a language writes types and values.

    value  as code that stands anywhere
    given  as an argument of an example; got: as what an example gives
    camel  whether functions are named so
    """

    types: Mapping[str, str]
    value: Callable[[Any, str], str]
    given: Callable[[Any, str], str]
    got: Callable[[Any, str], str]
    camel: bool


def problem(idea: Idea, language: str) -> Problem:
    """The problem as a raw completion: signature and comment, then the body."""
    style = _STYLES[language]
    name = _camel(idea.name) if style.camel else idea.name
    signature = ", ".join(_parameter(one, kind, language) for one, kind in idea.params.items())
    calls = [
        (_call(idea, name, test, style.value), style.value(test[-1], idea.returns))
        for test in idea.tests
    ]
    shown = [
        (_call(idea, name, test, style.given), style.got(test[-1], idea.returns))
        for test in idea.tests[:_EXAMPLES]
    ]
    if language == "python":
        parts = _python(idea, name, signature, calls, shown)
    elif language == "java":
        parts = _java(idea, name, signature, calls, shown)
    elif language == "cpp":
        parts = _cpp(idea, name, signature, calls, shown)
    else:
        parts = _javascript(idea, name, signature, calls, shown)
    prompt, canonical, test = parts
    return Problem(
        id=f"builtin/{language}/{idea.name}",
        language=language,
        kind=FUNCTION,
        prompt=prompt,
        head=prompt,
        test=test,
        canonical=canonical,
        entry=name,
    )


Calls = Sequence[tuple[str, str]]
Parts = tuple[str, str, str]


def _python(idea: Idea, name: str, signature: str, calls: Calls, shown: Calls) -> Parts:
    doc = textwrap.indent("\n".join(_described(idea, shown)), "    ").strip()
    returns = _STYLES["python"].types[idea.returns]
    prompt = f'def {name}({signature}) -> {returns}:\n    """{doc}\n    """\n'
    tests = "".join(f"assert {call} == {result}\n" for call, result in calls)
    return prompt, textwrap.indent(idea.solutions["python"], "    "), tests


def _javascript(idea: Idea, name: str, signature: str, calls: Calls, shown: Calls) -> Parts:
    prompt = f"{_comment(idea, shown, '')}function {name}({signature}) {{\n"
    tests = "".join(f"assert.deepStrictEqual({call}, {result});\n" for call, result in calls)
    body = textwrap.indent(idea.solutions["javascript"], "  ")
    return prompt, f"{body}}}\n", f"const assert = require('assert');\n{tests}"


def _cpp(idea: Idea, name: str, signature: str, calls: Calls, shown: Calls) -> Parts:
    returns = _STYLES["cpp"].types[idea.returns]
    includes = "".join(f"#include <{header}>\n" for header in _CPP_HEADERS)
    prompt = (
        f"{includes}using namespace std;\n\n"
        f"{_comment(idea, shown, '')}{returns} {name}({signature}) {{\n"
    )
    tests = "".join(f"    if (!({call} == {result})) return 1;\n" for call, result in calls)
    body = textwrap.indent(idea.solutions["cpp"], "    ")
    return prompt, f"{body}}}\n", f"int main() {{\n{tests}    return 0;\n}}\n"


def _java(idea: Idea, name: str, signature: str, calls: Calls, shown: Calls) -> Parts:
    returns = _STYLES["java"].types[idea.returns]
    prompt = (
        "import java.util.*;\n\nclass Solution {\n"
        f"{_comment(idea, shown, '    ')}    public static {returns} {name}({signature}) {{\n"
    )
    equal = {
        "ints": "Arrays.equals({0}, {1})",
        "str": "{1}.equals({0})",
    }.get(idea.returns, "{0} == {1}")
    tests = "".join(
        f"        if (!({equal.format(f'Solution.{call}', result)})) throw new AssertionError();\n"
        for call, result in calls
    )
    body = textwrap.indent(idea.solutions["java"], "        ")
    main = "    public static void main(String[] args) {\n"
    return prompt, f"{body}    }}\n}}\n", f"class Main {{\n{main}{tests}    }}\n}}\n"


_CPP_HEADERS = (
    "algorithm",
    "cctype",
    "cstdio",
    "iostream",
    "iterator",
    "map",
    "set",
    "sstream",
    "string",
    "vector",
)


def _comment(idea: Idea, shown: Calls, indent: str) -> str:
    inside = "".join(f"{indent} * {line}".rstrip() + "\n" for line in _described(idea, shown))
    return f"{indent}/**\n{inside}{indent} */\n"


def _described(idea: Idea, shown: Calls) -> list[str]:
    """What is asked and some examples, in the form that benchmarks and doctests have."""
    examples = (part for call, result in shown for part in (f">>> {call}", result))
    return [*textwrap.wrap(idea.doc, _WIDTH), "", *examples]


def _parameter(name: str, kind: str, language: str) -> str:
    written = _STYLES[language].types[kind]
    if language == "python":
        return f"{name}: {written}"
    if language == "javascript":
        return name
    return f"{written} {name}"


def _call(idea: Idea, name: str, test: Sequence[Any], written: Callable[[Any, str], str]) -> str:
    kinds = idea.params.values()
    given = (written(value, kind) for value, kind in zip(test, kinds, strict=False))
    return f"{name}({', '.join(given)})"


def _camel(name: str) -> str:
    return re.sub(r"_(.)", lambda match: match[1].upper(), name)


def _json(value: Any, kind: str) -> str:
    return json.dumps(value)


def _python_value(value: Any, kind: str) -> str:
    return repr(value)


def _cpp_value(value: Any, kind: str) -> str:
    if kind == "ints":
        return f"vector<int>{{{', '.join(map(str, value))}}}"
    if kind == "strs":
        return f"vector<string>{{{', '.join(map(json.dumps, value))}}}"
    return f"string({json.dumps(value)})" if kind == "str" else json.dumps(value)


def _cpp_shown(value: Any, kind: str) -> str:
    written = json.dumps(value)
    return f"{{{written[1:-1]}}}" if kind in ("ints", "strs") else written


def _java_value(value: Any, kind: str) -> str:
    if kind == "ints":
        return f"new int[] {{{', '.join(map(str, value))}}}"
    if kind == "strs":
        return f"new String[] {{{', '.join(map(json.dumps, value))}}}"
    return json.dumps(value)


_STYLES = {
    "python": _Style(
        {"int": "int", "bool": "bool", "str": "str", "ints": "list[int]", "strs": "list[str]"},
        _python_value,
        _python_value,
        _python_value,
        camel=False,
    ),
    "java": _Style(
        {"int": "int", "bool": "boolean", "str": "String", "ints": "int[]", "strs": "String[]"},
        _java_value,
        _java_value,
        _json,
        camel=True,
    ),
    "cpp": _Style(
        {
            "int": "int",
            "bool": "bool",
            "str": "string",
            "ints": "vector<int>",
            "strs": "vector<string>",
        },
        _cpp_value,
        _cpp_shown,
        _cpp_shown,
        camel=False,
    ),
    "javascript": _Style(
        dict.fromkeys(("int", "bool", "str", "ints", "strs"), ""), _json, _json, _json, camel=True
    ),
}
LANGUAGES = tuple(_STYLES)
