"""Where completions end, watched character by character as they are written."""

from __future__ import annotations

import pytest

from subllm.measuring.evaluation.stops import (
    FencedBlock,
    OneLine,
    StopRule,
    function_rule,
)
from subllm.models.text.lexing import depth, events
from subllm.models.text.looping import LOOP, REPEATS, looping

from . import benchmarks

PYTHON = 'def f(x):\n    """Doc."""\n'
JAVA = "class Solution {\n    public int f(int x) {\n"
CPP = "int f(int x){\n"
JAVASCRIPT = "const f = (x) => {\n"


def watched(rule: StopRule, text: str) -> str:
    """What counts of `text` when it is written in single characters."""
    for size in range(1, len(text) + 1):
        cut = rule.cut(text[:size])
        if cut is not None:
            assert size < len(text), "the rule waited for the end"
            return text[:cut]
    return text[: rule.end(text)]


@pytest.mark.parametrize(
    ("kept", "rest"),
    [
        ("    return x\n", "print(f(1))\n"),
        ("    return x\n\n\n", "def g():\n    pass\n"),
        ("    return x\n\n", "# Test the function\nprint(f(1))\n"),
        ("# Anew:\ndef f(x):\n    # one\n    return 1\n", "# Test\nf(1)\n"),
        ('    s = """\nat the margin\n"""\n    return s\n', "x = 1\n"),
        ("    return [\n1,\n2,\n]\n", "x = 1\n"),
        ("    return 'it''s [('\n", "x = 1\n"),
        ("    return x  # [(\n", "x = 1\n"),
        ("    s = '\\\nx'\n    return s\n", "x = 1\n"),
        ("\n\treturn x\n", "```\nThat was it."),
        # The whole function anew, with what it needs.
        ("from math import pi\n\ndef f(x):\n    return pi\n\n", "f(1)\n"),
        ("", "Here is the code:\n    return x\n"),
    ],
)
def test_python(kept: str, rest: str) -> None:
    assert watched(function_rule("python", PYTHON), kept + rest) == kept


def test_python_body_on_the_line_of_the_prompt() -> None:
    assert watched(function_rule("python", "def f(x): return"), " x\ny = 1\n") == " x\n"


def test_python_stops_at_the_first_character() -> None:
    rule = function_rule("python", PYTHON)
    assert rule.cut("    return x\np") == len("    return x\n")


@pytest.mark.parametrize(
    ("language", "head", "kept", "rest"),
    [
        ("cpp", CPP, "    return x;\n}", "\n\nint main() {\n}\n"),
        ("cpp", CPP, "    string s = \"}\"; // }\n    char c = '}'; /* } */\n}", "\nx"),
        ("cpp", CPP, '    auto s = R"x(})" }\n)x"; int n = 1\'000\'000; if (x) { }\n}', "\nx"),
        ("cpp", CPP, "    if (x) {\n", "int main() {\n    return 0;\n}\n"),
        ("cpp", CPP, "    if (x) {\n", "#include <map>\n"),
        ("cpp", CPP, "return 1;\n}", "\n"),
        ("javascript", JAVASCRIPT, "  return x\n}", ";\n\nconst g = 1\n"),
        ("javascript", JAVASCRIPT, "  return x.replace(/[{]/g, '}') / 2 // }\n}", "\nx"),
        ("javascript", JAVASCRIPT, "  return `}${ x.map(y => `<${y}>`) }`\n}", "\nx"),
        ("javascript", JAVASCRIPT, "  let y = x / 2; let z = y / {}.length\n}", "\nx"),
        ("javascript", JAVASCRIPT, "  if (x) {\n", "const g = (y) => {\n  return y\n}\n"),
        ("javascript", JAVASCRIPT, "  if (x) {\n", "```\n"),
        ("java", JAVA, "        return x;\n    }\n}", "\nclass Main {}\n"),
        ("java", JAVA, "        return g();\n    }\n\n    int g() {\n    }\n}", "\nx"),
        (
            "java",
            JAVA,
            "        return x;\n    }",
            "\n\n    public static void main(String[] args) {\n    }\n}\n",
        ),
        ("java", JAVA, '        String s = """\n        }\n""";\n    }\n}', "\nx"),
        ("java", JAVA, "        return x;\n    }", "\n\npublic class Main {\n}\n"),
    ],
)
def test_braces(language: str, head: str, kept: str, rest: str) -> None:
    assert watched(function_rule(language, head), kept + rest) == kept


def test_java_cut_short_in_a_second_member_keeps_the_first() -> None:
    first = "        return g();\n    }"
    rule = function_rule("java", JAVA)
    assert watched(rule, first + "\n\n    int g() {\n        return") == first


def test_a_function_that_never_ends_is_kept_whole() -> None:
    text = "    for (;;) {\n        x++;\n"
    assert watched(function_rule("cpp", CPP), text) == text


@pytest.mark.parametrize("language", ["python", "java", "cpp", "javascript"])
def test_rules_do_not_depend_on_the_pieces(language: str) -> None:
    heads = {"python": PYTHON, "java": JAVA, "cpp": CPP, "javascript": JAVASCRIPT}
    text = "    a = { 1 }\n    if (a) { b }\n    }\n}\nx = 1\n"
    whole = function_rule(language, heads[language]).end(text)
    assert len(watched(function_rule(language, heads[language]), text)) == whole < len(text)


def test_chat_ends_with_its_first_code_block() -> None:
    block = "Sure:\n```python\nx = '``'\n```"
    assert watched(FencedBlock(), block + "\nThis is why.") == block
    assert watched(FencedBlock(), "no code") == "no code"
    assert watched(FencedBlock(), "```\nnever closed\n") == "```\nnever closed\n"


def test_one_line() -> None:
    assert watched(OneLine("rest"), "    x = 1\n    y") == "    x = 1\n"
    assert watched(OneLine("\nrest"), "    x = 1\n    y") == "    x = 1"
    assert watched(OneLine("rest"), "\n  x\n  y") == "\n  x\n"


@pytest.mark.parametrize(
    ("start", "piece", "rest"),
    [
        ("    x = 0\n", "    # Remove spaces from the input string\n", ""),
        ("    if p == 0:\n", "    if p == 1:\n        return 1\n\n    # Check it\n", "    if"),
        ("    vowels = [", "'a', 'b', 'c', ", "'a', '"),
        ("", "  ", ""),
    ],
)
def test_loops_are_noticed_soon(start: str, piece: str, rest: str) -> None:
    assert looping(start + piece * max(REPEATS + 1, LOOP // len(piece) + 1) + rest)
    assert not looping(start + piece * (REPEATS - 2) + rest)
    assert not looping(start + piece * 100 + "and then something else, at last, entirely")


@pytest.mark.parametrize("text", ["", "a", "a" * (LOOP - 1)])
def test_short_texts_are_no_loops(text: str) -> None:
    assert not looping(text)


def test_series_are_no_loops() -> None:
    assert not looping("".join(f"    elif p == {n}:\n        return {n}\n" for n in range(40)))


def test_depth_counts_code_only() -> None:
    assert depth(JAVA, "java") == 2
    assert depth("f({'}': [1, ')']})  # )", "python") == 0
    assert depth("/* { */ { // {", "cpp") == 1


def test_lines_inside_strings_are_no_lines() -> None:
    text = 'x = """\na\n"""\ny = \\\n1\nz'
    lines = [text[event.at :] for event in events(text, "python") if event.kind == "line"]
    assert lines == ["y = \\\n1\nz", "z"]


AFTER = {
    "python": "\n\nprint(f(3))\ndef g():\n    return 1\n",
    "java": "\n\npublic class Main {\n  int x() { return 1; }\n}\n",
    "cpp": "\n\nint main() {\n  return 0;\n}\n",
    "javascript": "\n\nconst g = (x) => {\n return 1;\n}\nconsole.log(g(1));\n",
}


@pytest.mark.shared
@pytest.mark.parametrize("language", sorted(AFTER))
def test_real_solutions_are_kept_whole(language: str) -> None:
    cut = []
    for problem in benchmarks.humaneval_x(language).problems:
        solution = problem.canonical or ""
        rule = function_rule(language, problem.head)
        if watched(rule, solution + AFTER[language]).strip() != solution.strip():
            cut.append(problem.id)
        assert not any(looping(solution[:size]) for size in range(len(solution)))
    # This one's solution goes on after the function, with an #include.
    assert cut == (["CPP/94"] if language == "cpp" else [])
