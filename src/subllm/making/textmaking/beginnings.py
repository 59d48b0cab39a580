"""How functions begin that a base is to write: a name, parameters and a comment are drawn."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

WORDS = Path(__file__).with_name("functions.yaml")
_TYPES = ("List", "Tuple", "Optional")
_FIRST = re.compile(r"(\w+)(?:,(?![^<]*>)|$)")  # parameter; no comma of a type's
_GIVEN = {
    "text": "a string",
    "words": "a list of words",
    "numbers": "a list of integers",
    "values": "a list of numbers",
    "n": "an integer",
    "a": "two integers",
    "matrix": "a matrix",
    "items": "a map of items",
    "first": "two strings",
    "array": "an array and a predicate",
}
_DOCSTRING, _BARE = 0.7, 0.85  # up to here of a draw: with a docstring begun, a signature alone


@dataclass(frozen=True)
class Beginning:
    """What the base goes on after, as its `number`-th text. outer: braces that are open around
    the function."""

    number: int
    text: str
    outer: int = 0

    @property
    def id(self) -> str:
        return f"function-{self.number:05d}"


@dataclass(frozen=True)
class _Drawn:
    """name: the words of it. result: "" where none is said."""

    name: tuple[str, ...]
    parameters: str
    result: str

    @property
    def snake(self) -> str:
        return "_".join(self.name)

    @property
    def camel(self) -> str:
        return self.name[0] + "".join(word.capitalize() for word in self.name[1:])

    @property
    def said(self) -> tuple[str, str]:
        """How a comment about it begins."""
        what = " ".join(self.name)
        first = _FIRST.search(self.parameters)
        assert first is not None
        return what.capitalize(), f"Given {_GIVEN[first[1]]}, {what}"


def languages() -> tuple[str, ...]:
    """Those that functions can be begun in."""
    return tuple(_words()["signatures"])


def beginnings(language: str, seed: int = 7) -> Iterator[Beginning]:
    """All of a language, in an order that the seed decides."""
    words = _words()
    names = list(itertools.product(words["verbs"].split(), words["nouns"].split()))
    draw = random.Random(seed)  # noqa: S311 - the same in every version of Python
    draw.shuffle(names)
    signatures = list(words["signatures"][language].items())
    for number, (verb, noun) in enumerate(names):
        parameters, results = draw.choice(signatures)
        result = draw.choice(results)
        name = tuple(f"{verb}_{noun}".split("_"))
        text, outer = _WRITERS[language](_Drawn(name, parameters, result), draw)
        yield Beginning(number, text, outer)


@cache
def _words() -> dict[str, Any]:
    words: dict[str, Any] = yaml.safe_load(WORDS.read_text())
    return words


def _python(drawn: _Drawn, draw: random.Random) -> tuple[str, int]:
    result = f" -> {drawn.result}" if drawn.result else ""
    line = f"def {drawn.snake}({drawn.parameters}){result}:\n"
    used = [name for name in _TYPES if name in line]
    head = f"from typing import {', '.join(used)}\n\n\n" if used else ""
    kind = draw.random()
    if kind < _DOCSTRING:
        return f'{head}{line}    """' + draw.choice(["", "\n    ", " "]), 0
    if kind < _BARE:
        return head + line, 0
    return f"def {drawn.snake}(", 0


def _java(drawn: _Drawn, draw: random.Random) -> tuple[str, int]:
    """In a class. A comment comes before its method, whose name is then the base's."""
    head = draw.choice(
        [
            "import java.util.*;\nimport java.lang.*;\n\nclass Solution {\n",
            "import java.util.*;\n\nclass Solution {\n",
            "import java.util.*;\nimport java.util.stream.*;\n\n"
            f"public class {drawn.name[-1].capitalize()}Utils {{\n",
        ]
    )
    kind = draw.random()
    said = draw.choice(drawn.said)
    if kind < _DOCSTRING:
        comment = draw.choice(["    /**\n    ", "    /**\n     * ", "    // "])
        return f"{head}{comment}{said}", 1
    access = draw.choice(["public", "public static"])
    line = f"    {access} {drawn.result} {drawn.camel}("
    return head + line + (f"{drawn.parameters}) {{\n" if kind < _BARE else ""), 1


def _cpp(drawn: _Drawn, draw: random.Random) -> tuple[str, int]:
    head = draw.choice(
        [
            "#include <string>\n#include <vector>\n\n",
            "#include <algorithm>\n#include <map>\n#include <string>\n#include <vector>\n"
            "using namespace std;\n\n",
            "#include <iostream>\n#include <string>\n#include <vector>\nusing namespace std;\n\n",
        ]
    )
    kind = draw.random()
    said = draw.choice(drawn.said)
    if kind < _DOCSTRING:
        return head + draw.choice(["/*\n", "// ", "/**\n * "]) + said, 0
    name = draw.choice([drawn.snake, drawn.camel])
    if "using" not in head:  # as parameters want it
        head = "#include <bits/stdc++.h>\nusing namespace std;\n\n"
    line = f"{drawn.result} {name}("
    return head + line + (f"{drawn.parameters}) {{\n" if kind < _BARE else ""), 0


def _javascript(drawn: _Drawn, draw: random.Random) -> tuple[str, int]:
    """A comment alone could begin code of any language."""
    head = draw.choice([f"// {drawn.name[-1]}.js\n\n", "'use strict';\n\n"])
    kind = draw.random()
    said = draw.choice(drawn.said)
    if kind < _DOCSTRING:
        return head + draw.choice(["/* ", "/**\n * ", "// "]) + said, 0
    if kind < _BARE:
        return draw.choice(
            [
                f"function {drawn.camel}({drawn.parameters}) {{\n",
                f"const {drawn.camel} = ({drawn.parameters}) => {{\n",
            ]
        ), 0
    return draw.choice([f"function {drawn.camel}(", f"const {drawn.camel} = ("]), 0


_WRITERS: dict[str, Callable[[_Drawn, random.Random], tuple[str, int]]] = {
    "python": _python,
    "java": _java,
    "cpp": _cpp,
    "javascript": _javascript,
}
