"""From completions and chat replies to programs, judged by running the Python ones and by
reading the others."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from subllm.measuring.evaluation.forms import problem_of
from subllm.measuring.evaluation.problems import Problem
from subllm.measuring.evaluation.programs import code_block, function_name, program_of, stop_rule
from subllm.measuring.evaluation.stops import FencedBlock, OneLine, PythonBlock

from .benchmarks import HUMANEVAL, HUMANEVAL_X, INFILLING, MBPP, MULTIPL_E


def problem(form: str, row: dict[str, object]) -> Problem:
    made = problem_of(form, row)
    assert made is not None
    return made


ADD = problem("humaneval", HUMANEVAL)
HELPED = replace(
    ADD,
    prompt="import math\n\ndef one():\n    return 1\n\n" + ADD.prompt,
    head="import math\n\ndef one():\n    return 1\n\n" + ADD.prompt,
)
CPP = problem("humaneval-x", HUMANEVAL_X)
CPP_HELPED = replace(
    CPP,
    head="#include<vector>\nusing namespace std;\nint one(){\n    return 1;\n}\n"
    "int add(int a, int b){\n    /* Sum { */\n",
)
JAVA = Problem(
    id="Java/0",
    language="java",
    kind="function",
    prompt="",
    head="import java.util.*;\n\nclass Solution {\n    public int add(int a, int b) {\n",
    test="public class Main { }\n",
)
JS = Problem(
    id="JavaScript/0",
    language="javascript",
    kind="function",
    prompt="",
    head="const one = () => {\n  return 1\n}\n\nconst add = (a, b) => {\n",
    test="add(1, 2)\n",
)


def passes(program: str) -> bool:
    try:
        exec(program, {"__name__": "tested"})
    except Exception:
        return False
    return True


def count(pattern: str, program: str) -> int:
    return len(re.findall(pattern, program))


@pytest.mark.parametrize(
    ("made", "name"),
    [(ADD, "add"), (HELPED, "add"), (CPP, "add"), (CPP_HELPED, "add"), (JAVA, "add"), (JS, "add")],
)
def test_the_function_that_is_asked_for(made: Problem, name: str) -> None:
    assert function_name(replace(made, entry="")) == name


def test_code_blocks() -> None:
    assert code_block("a\n```\nx\n```\n```python\ny\n```", "python") == "y\n"
    assert code_block("a\n```js\nx\n```", "javascript") == "x\n"
    assert code_block("a\n```text\nx\n```", "java") == "x\n"
    assert code_block("```C++\nx\n", "cpp") == "x\n"  # cut short
    assert code_block("return 1", "python") == "return 1"


@pytest.mark.parametrize(
    "reply",
    [
        "Here:\n```python\ndef add(a, b):\n    return a + b\n```\nIt adds.",
        "```python\nimport sys\n\ndef add(a, b):\n    return a + b\n\nprint(add(1, 2))\n```",
        "```\n    return a + b\n```",
        "def add(a, b):\n    return a + b",
    ],
)
def test_python_replies(reply: str) -> None:
    assert passes(program_of(ADD, reply, "chat"))
    assert not passes(program_of(ADD, reply.replace("+", "-"), "chat"))


def test_python_reply_keeps_the_helpers_of_the_prompt() -> None:
    reply = "```python\ndef add(a, b):\n    return math.floor(a + b) + one() - 1\n```"
    assert passes(program_of(HELPED, reply, "chat"))


def test_mbpp_reply_is_the_program() -> None:
    reply = "```python\ndef add(a, b):\n    return a + b\n```"
    assert passes(program_of(problem("mbpp", MBPP), reply, "chat"))


def test_cpp_reply_loses_its_main_and_repeats_no_helper() -> None:
    body = "int add(int a, int b) {\n    return a + b;\n}\n"
    main = "int main() {\n    if (true) { add(1, 2); }\n    return 0;\n}\n"
    program = program_of(CPP_HELPED, f"```cpp\n#include <map>\n{body}\n{main}```", "chat")
    assert count(r"int main", program) == 1  # the test's own
    assert count(r"int one\(\)", program) == 1
    assert count(r"int add\(", program) == 1
    assert "#include<vector>\nusing namespace std;" in program
    again = f"```cpp\nint one() {{ return 1; }}\n{body}```"
    assert count(r"int one\(\)", program_of(CPP_HELPED, again, "chat")) == 1


def test_java_replies() -> None:
    method = "public int add(int a, int b) {\n    return a + b;\n}\n"
    for reply in (
        f"```java\npublic class Solution {{\n{method}}}\n```",
        f"```java\n{method}```",
        f"```java\nclass Solution {{\n{method}}}\npublic class Main {{\n  void x() {{ }}\n}}\n```",
    ):
        program = program_of(JAVA, reply, "chat")
        assert count(r"class Solution", program) == 1
        assert count(r"public class", program) == 1  # the test's own
        assert program.startswith("import java.util.*;")
        assert program.count("{") == program.count("}")


def test_javascript_replies() -> None:
    function = "const add = (a, b) => {\n  return a + one()\n}\n"
    program = program_of(JS, f"```javascript\n{function}```", "chat")
    assert count(r"const one =", program) == count(r"const add =", program) == 1
    repeated = f"```javascript\nconst one = () => 1\n{function}```"
    assert count(r"const one =", program_of(JS, repeated, "chat")) == 1
    body = program_of(JS, "```javascript\n  return a + b\n}\n```", "chat")
    assert count(r"const add =", body) == 1


def test_raw_java_closes_the_class_of_a_finished_method() -> None:
    done = program_of(JAVA, "        return 1;\n    }", "raw")
    assert "    }\n}\npublic class Main" in done
    whole = program_of(JAVA, "        return 1;\n    }\n}", "raw")
    assert whole.count("}") == done.count("}")
    unfinished = program_of(JAVA, "        return 1;\n", "raw")
    assert unfinished.count("}") == 1  # the test's own


def test_raw_completions_are_not_changed() -> None:
    assert program_of(ADD, "    return 1\n", "raw") == ADD.program("    return 1\n")
    assert program_of(CPP, "return 1;\n}", "raw") == CPP.program("return 1;\n}")
    made = problem("multipl-e", MULTIPL_E)
    assert program_of(made, "  return 1\n", "raw") == made.program("  return 1\n")


def test_infilled_line_gets_its_end() -> None:
    hole = problem("infilling", INFILLING)
    assert passes(program_of(hole, "    total = a + b", "fim"))
    assert passes(program_of(hole, "    total = a + b\n", "fim"))
    spans = replace(hole, id="RandomSpanInfilling/1")
    assert not passes(program_of(spans, "    total = a + b", "fim"))


def test_rules() -> None:
    assert isinstance(stop_rule(ADD, "raw"), PythonBlock)
    assert isinstance(stop_rule(ADD, "chat"), FencedBlock)
    assert isinstance(stop_rule(problem("infilling", INFILLING), "fim"), OneLine)
    assert stop_rule(problem("multipl-e", MULTIPL_E), "raw") is None  # has stop strings
    assert stop_rule(problem("mbpp", MBPP), "raw") is None
