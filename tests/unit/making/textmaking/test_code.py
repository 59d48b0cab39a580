"""Code as the makers of text see it: parsers, ends of functions, what is whole."""

from __future__ import annotations

import pytest

from subllm.making.textmaking.ending import function_end
from subllm.making.textmaking.lead import lead_of
from subllm.making.textmaking.parse import parse
from subllm.making.textmaking.whole import whole_part

JAVA = """import java.util.*;

class Solution {
    /**
     * Counts { the words.
     */
    public int count(String text) {
        if (text == null) { return 0; }
        return text.split("}").length;
    }
"""
CPP = """/*
Sum of numbers
*/
#include <vector>
using namespace std;
int total(vector<int> numbers) {
    vector<int> some = {1, 2};
    return numbers[0] + some[1];
}
"""
JAVASCRIPT = """/* Apart { */
const first = ({ a, b }) => {
  return [a, b].map((x) => {
    return x + 1;
  });
};
"""


@pytest.mark.parametrize(
    ("language", "text", "outer"),
    [("java", JAVA, 1), ("cpp", CPP, 0), ("javascript", JAVASCRIPT, 0)],
)
@pytest.mark.parametrize("after", ["", "\nint main() {\n}\n", "\n// }\n"])
def test_a_function_ends_with_the_line_of_its_brace(
    language: str, text: str, outer: int, after: str
) -> None:
    assert function_end(text + after, language, outer) == len(text)
    open_text = text[: text.rindex("}")]
    assert function_end(open_text, language, outer) is None


@pytest.mark.parametrize(
    ("language", "text", "functions"),
    [
        ("java", JAVA + "}\n", 1),
        ("cpp", CPP, 1),
        ("javascript", JAVASCRIPT, 1),  # what is inside of another counts with that
        ("javascript", "const half = (x) => x / 2;\nfunction none() {\n  // nothing\n}\n", 1),
        ("python", "class A:\n    def f(self):\n        def g(): pass\n        return g\n", 1),
        ("python", 'def f():\n    """Only said."""\n', 0),
        ("cpp", "int f() {\n}\nint g() { return 1; }\n", 1),
    ],
)
def test_functions_with_a_body_are_counted(language: str, text: str, functions: int) -> None:
    seen = parse(text, language)
    assert seen is not None and seen.functions == functions


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("java", JAVA),
        ("cpp", "int f() { return x }\n"),
        ("javascript", "const x = ;\n"),
        ("python", "def f(:\n    pass\n"),
        ("python", "x = '\0'\n"),
    ],
)
def test_what_does_not_parse(language: str, text: str) -> None:
    assert parse(text, language) is None


@pytest.mark.parametrize(
    ("language", "lead", "body"),
    [
        ("python", '@cache\ndef f(\n    a,\n):\n    """Say it."""\n', "    b = a\n    return b\n"),
        ("python", "def f(a):\n", "    b = a\n    return b\n"),
        ("java", "/** {@code a}. */\nint f(int a) {\n", "    int b = a;\n    return b;\n}\n"),
        ("cpp", "// One.\nint f(int a)\n{\n", "    int b = a;\n    return b;\n}\n"),
    ],
)
def test_the_lead_is_all_before_the_body(language: str, lead: str, body: str) -> None:
    assert lead_of(lead + body, language) == lead


@pytest.mark.parametrize(
    ("language", "text"),
    [("python", "def f(a): return a\n"), ("python", "x = 1\n"), ("cpp", "int f() { return 1; }\n")],
)
def test_nothing_to_write_has_no_lead(language: str, text: str) -> None:
    assert lead_of(text, language) == ""


def test_code_that_was_cut_is_whole_up_to_its_last_definition() -> None:
    whole = "import os\n\n\ndef f():\n    return os.sep\n"
    assert whole_part(whole + "\n\ndef g():\n    x = [1,\n", "python") == whole
    assert whole_part(CPP + "\nint other(int x) {\n    if (x", "cpp") == CPP
    assert whole_part(JAVA + "\n    int other(int x) {\n        ret", "java") == JAVA + "}\n"
    assert whole_part("int other(int x) {\n    if (x", "cpp") == ""
