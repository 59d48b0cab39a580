"""Each language's own tool on a text that it must take and texts that it must not."""

from __future__ import annotations

import pytest
from checkers import CHECKERS
from tasks import tasks

CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "python": (
        "import os\nfrom xml import sax\nfrom numpy import anything\n\n\n"
        "def f(x: int) -> str:\n    return os.sep * x\n",
        (
            "def f(:\n    pass\n",
            "def f():\n    return missing\n",
            "return 3\n",
            "from collections import PriorityQueue\n",
            "from os.paths import join\n",
        ),
    ),
    "javascript": (
        "const fs = require('fs');\nmodule.exports = { f: (x) => fs?.a ?? x };\n",
        ("const x = ;\n", "import fs from 'fs';\nmodule.exports = { fs };\n"),
    ),
    "cpp": (
        "#include <optional>\nint main() { std::optional<int> x = 1; return *x; }\n",
        ("int main() { return x; }\n", "int main() { std::vector<int> v; }\n"),
    ),
    "java": (
        "import java.util.List;\n\npublic record Pair(List<String> a) {}\n",
        ("public class A { int f() { } }\n", "class A { List<String> x; }\n"),
    ),
    "c": (
        '#include <stdio.h>\nint main(void) { return printf("x"); }\n',
        ("int main(void) { return y; }\n",),
    ),
    "bash": ('for x in a b; do echo "$x"; done\n', ("if true; then echo x\n",)),
    "sql": (
        "CREATE TABLE a (b INTEGER);\nSELECT max(b) FROM a GROUP BY b;\n",
        ("SELECT b FROM a;\n", "SELEKT 1;\n", "ATTACH DATABASE 'x.db' AS x;\n"),
    ),
    "html": (
        "<!DOCTYPE html>\n<html><head><title>a</title></head><body><ul><li>a<li>b</ul>"
        "<p>x<br>y</body></html>\n",
        ("<div><span>a</div></span><p>x</p>\n", "<div><p>a</p><p>b</p>\n", "only text\n"),
    ),
    "yaml": ("a: [1, 2]\n---\n- b\n", ("a: b: c\n", "just a sentence\n", "")),
    "go": ("package main\n\nfunc main() { x := 1; _ = x }\n", ("func main( { }\n",)),
    "rust": ("fn main() { let x = Some(1); }\n", ("fn main() { let = 1; }\n",)),
    "typescript": ("const f = (x: number): string => `${x}`;\n", ("const f: = 1;\n",)),
    "ruby": ("def f(x)\n  x * 2\nend\n", ("def f(x)\n",)),
    "kotlin": ("data class A(val x: Int)\n", ("fun f( = 1 }\n",)),
    "php": ("<?php\nfunction f(int $x): int { return $x; }\n", ("<?php\nfunction ( {\n",)),
    "csharp": ("class A { int X { get; set; } }\n", ("class A { int X { get; \n",)),
}


@pytest.mark.parametrize("tag", CASES)
def test_the_tool_takes_good_text_and_no_other(tag: str) -> None:
    checker = CHECKERS[tag]
    try:
        version = checker.version()
    except LookupError as error:
        pytest.skip(f"{tag} is NOT checked: {error}")
    assert any(c.isdigit() for c in version) or tag == "html"
    good, bad = CASES[tag]
    assert checker.accepts(good)
    for code in bad:
        assert not checker.accepts(code), code


def test_every_tag_of_a_task_has_a_checker_with_cases() -> None:
    languages = ("python", "javascript", "cpp", "java", "general")
    tags = {t.tag for name in languages for t in tasks(name, 10_000) if t.answer == "code"}
    assert tags == set(CHECKERS) == set(CASES)
