"""Verdicts of the four tool chains: only a program that reaches its end passes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from subllm.errors import ToolchainMissingError, UnknownNameError
from subllm.measuring.evaluation.sandbox import Sandbox
from subllm.measuring.evaluation.toolchains import Toolchain, toolchain

from .benchmarks import FILES, shared
from .sandboxes import sandbox_or_skip

LANGUAGES = ["python", "java", "cpp", "javascript"]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with sandbox_or_skip() as sandbox:
        yield sandbox


class Tools:
    """The tool chains of this machine, made when first asked for."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._made: dict[str, Toolchain] = {}

    def __getitem__(self, language: str) -> Toolchain:
        if language not in self._made:
            try:
                self._made[language] = toolchain(language, self._sandbox)
            except ToolchainMissingError as error:
                pytest.skip(f"NO TOOL CHAIN: {error}")
        return self._made[language]


@pytest.fixture(scope="module")
def tools(sandbox: Sandbox) -> Tools:
    return Tools(sandbox)


def test_versions(tools: Tools) -> None:
    assert tools["python"].version().startswith("Python 3.")


@pytest.mark.parametrize("language", LANGUAGES)
def test_versions_have_numbers(tools: Tools, language: str) -> None:
    tool = tools[language]
    assert tool.language == language
    assert any(character.isdigit() for character in tool.version())


def test_unknown_language(sandbox: Sandbox) -> None:
    with pytest.raises(UnknownNameError, match="did you mean python"):
        toolchain("pyhton", sandbox)


@pytest.mark.parametrize(("language", "name"), [("java", "javac"), ("cpp", "g++")])
def test_missing_tools_say_what_to_install(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, language: str, name: str
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ToolchainMissingError, match=f"{name.replace('+', '[+]')}.*apt install"):
        toolchain(language, sandbox)


JAVA = "class Solution {{ int two() {{ {} }} }}\n{}"
JAVA_MAIN = "public class Main {{ public static void main(String[] a) throws Exception {{ {} }} }}"
JAVA_TEST = JAVA_MAIN.format(
    'System.out.println("noise"); if (new Solution().two() != 2) throw new AssertionError();'
)
CPP = "#include <cstdlib>\n#include <cassert>\n#include <cstdio>\n#include <unistd.h>\n"
CPP_TEST = 'int main() { printf("noise"); assert(two() == 2); }\n'
JS_TEST = "\nconst test = () => { console.log('noise'); console.assert(two() === 2) }\ntest()\n"
PY_TEST = "\ndef check(f):\n    print('noise')\n    assert f() == 2\ncheck(two)\n"

GOOD = {
    "python": ["def two(): return 2\n" + PY_TEST],
    "java": [
        JAVA.format("return 2;", JAVA_TEST),
        # The public class is not called Main, and comes first.
        "import java.util.*;\nclass Problem {public static void main(String[] args) {\n"
        "assert new ArrayList<>(List.of(1)).size() == 1; }}".replace("class P", "public class P"),
        JAVA.format("java.util.function.IntSupplier s = () -> 2; return s.getAsInt();", JAVA_TEST),
        # Another thread does not keep it.
        JAVA_MAIN.format("new Thread(() -> { while (true); }).start();"),
    ],
    "cpp": [
        CPP + "int two() { return 2; }\n" + CPP_TEST,
        CPP + "int main(int argc, char **argv) { return argc - 1; }",
        "#include <iostream>\nint main() { std::ios::sync_with_stdio(false); std::cout << 1; }",
    ],
    "javascript": [
        "const two = () => 2" + JS_TEST,
        "const assert = require('node:assert');\nassert.deepEqual([1], [1]);",
        "'use strict';\nlet done = false\nsetTimeout(() => { done = true }, 5)\n"
        "process.on('exit', () => console.assert(done))",
        "(async () => { await null; console.assert(true) })() // no line end, no semicolon",
        "const performance = 1, crypto = 2, name = 3\nfunction fetch() {}",
    ],
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_good_programs_pass(tools: Tools, language: str) -> None:
    for program in GOOD[language]:
        verdict = tools[language].check(program, wall_seconds=10)
        assert (verdict.status, verdict.detail) == ("passed", ""), program
        assert 0 < verdict.seconds < 20


BAD = {
    "python": [
        ("def two(): return 3\n" + PY_TEST, "failed", "AssertionError"),
        ("def two(): raise KeyError('x')\n" + PY_TEST, "failed", "KeyError: 'x'"),
        ("def two() return 2\n" + PY_TEST, "compile_error", "SyntaxError"),
        ("x = input()", "failed", "EOFError"),
        ("def f(): return f()\nf()", "failed", "RecursionError"),
        ("import sys\nsys.exit(3)", "failed", "exit status 3"),
        ("import time\ntime.sleep(100)", "timeout", "ran for"),
        ("x = 'x' * (1 << 40)", "memory", "memory"),
        ("import numpy", "failed", "No module named 'numpy'"),
    ],
    "java": [
        (JAVA.format("return 3;", JAVA_TEST), "failed", "AssertionError"),
        (JAVA_MAIN.format("assert 1 == 2;"), "failed", "AssertionError"),
        (JAVA.format("return two;", JAVA_TEST), "compile_error", "cannot find symbol"),
        (JAVA.format("return two();", JAVA_TEST), "failed", "StackOverflowError"),
        (JAVA_MAIN.format("System.exit(3);"), "failed", "exit status 3"),
        (JAVA_MAIN.format("while (true);"), "timeout", "ran for"),
        (JAVA_MAIN.format("int[] x = new int[1 << 29];"), "memory", "memory"),
        ("public class A {}\n" + JAVA_MAIN.format(""), "compile_error", "A.java"),
        ("class Solution {}", "failed", "Main"),
    ],
    "cpp": [
        (CPP + "int two() { return 3; }\n" + CPP_TEST, "failed", "Assertion `two() == 2' failed"),
        (CPP + "int two() { return too; }\n" + CPP_TEST, "compile_error", "was not declared"),
        (CPP + "int two();\n" + CPP_TEST, "compile_error", "undefined reference to"),
        ("int two() { return 2; }", "compile_error", "undefined reference"),
        (CPP + "int main() { return 3; }", "failed", "exit status 3"),
        (CPP + "int main() { int *p = 0; *p = 1; }", "failed", "exit status -11"),
        (CPP + "int main() { volatile int x = 0; while (!x); }", "timeout", "ran for"),
        ("#include <new>\nint main() { new char[1ull << 40]; }", "memory", "memory"),
        ("#include<no/such.hpp>\nint main() {}", "compile_error", "the header no/such.hpp"),
    ],
    "javascript": [
        ("const two = () => 3" + JS_TEST, "failed", "Assertion failed"),
        ("const two = () => { return two.x.y }" + JS_TEST, "failed", "TypeError"),
        ("const two = () => {" + JS_TEST, "compile_error", "SyntaxError"),
        ("require('assert').equal(1, 2)", "failed", "AssertionError"),
        ("setTimeout(() => console.assert(false), 1)", "failed", "Assertion failed"),
        ("Promise.reject(new Error('late'))", "failed", "Error: late"),
        ("process.exitCode = 4", "failed", "exit status 1"),
        ("process.exit(3)", "failed", "exit status 3"),
        ("while (true) {}", "timeout", "ran for"),
        ("setInterval(() => {}, 10)", "timeout", "ran for"),
        ("const x = []; while (true) x.push(new Array(1 << 20).fill(x))", "memory", "memory"),
        ("require('no-such-module')", "failed", "Cannot find module"),
    ],
}


@pytest.mark.parametrize(
    ("language", "program", "status", "detail"),
    [(language, *case) for language in LANGUAGES for case in BAD[language]],
)
def test_bad_programs_do_not(
    tools: Tools, language: str, program: str, status: str, detail: str
) -> None:
    seconds = 1 if status == "timeout" else 10
    verdict = tools[language].check(program, wall_seconds=seconds)
    assert verdict.status == status, verdict
    assert detail in verdict.detail
    assert "\n" not in verdict.detail


# Each leaves with status 0 before the tests, which would fail.
EARLY = {
    "python": [
        "import sys\nsys.exit(0)\n",
        "import os\nos._exit(0)\n",
        "raise SystemExit\n",
        "quit = exit = None\nimport os, signal\nos.execv('/bin/true', ['true'])\n",
        "import atexit, os\natexit.register(os._exit, 0)\nraise ValueError\n",
        "import sys, os\nsys.excepthook = lambda *a: os._exit(0)\n",
    ],
    "java": [
        "System.exit(0);",
        "Runtime.getRuntime().halt(0);",
        "new Thread(() -> System.exit(0)).start(); while (true);",
    ],
    "cpp": [
        "exit(0);",
        "_exit(0);",
        "quick_exit(0);",
        'execl("/bin/true", "true", nullptr);',
        "atexit([] { _exit(0); }); exit(1);",
    ],
    "javascript": [
        "process.exit(0)",
        "process.reallyExit(0)",
        "process.exitCode = 0; process.exit()",
        "return",
        "process.on('uncaughtException', () => {})",
        "process.on('uncaughtException', () => process.exit(0))",
        "process.on('exit', () => { process.exitCode = 0 })",
        "setImmediate(() => process.exit(0)); console.assert = () => {}",
    ],
}
AROUND = {
    "python": "CODEassert False\n",
    "java": JAVA_MAIN.format("if (a.length == 0) { CODE } throw new AssertionError();"),
    "cpp": CPP + "struct Early { Early() { CODE } };\nEarly early;\nint main() { assert(0); }",
    "javascript": "CODE\nconsole.assert(false)\nif (true) throw new Error('end')\n",
}


@pytest.mark.parametrize(
    ("language", "code"), [(name, code) for name in LANGUAGES for code in EARLY[name]]
)
def test_leaving_early_is_no_pass(tools: Tools, language: str, code: str) -> None:
    program = AROUND[language].replace("CODE", code)
    verdict = tools[language].check(program, wall_seconds=5)
    assert verdict.status == "failed", verdict


@pytest.mark.parametrize("console", ["console", "require('console')", "require('node:console')",
    "globalThis.console", "new console.Console(process.stdout)",
    "new (require('console').Console)(process.stderr)", "{ assert: console.assert }"])  # fmt: skip
def test_an_assertion_that_only_prints_is_a_failure(tools: Tools, console: str) -> None:
    program = f"const it = {console}\nconst {{ assert }} = it\n"
    for call in ("it.assert(1 === 2, 'x')", "assert(0)", "it.assert()"):
        verdict = tools["javascript"].check(program + call, wall_seconds=5)
        assert verdict.status == "failed", call
    verdict = tools["javascript"].check(program + "it.assert(1, 2)", wall_seconds=5)
    assert verdict.status == "passed"


def test_printed_secrets_differ(tools: Tools) -> None:
    """A program that prints what it read is no better for it: the runner reads first."""
    for program in ("import sys\nprint(sys.stdin.read())\nsys.exit(0)", "print('0' * 32)\nx"):
        assert tools["python"].check(program, wall_seconds=5).status == "failed"


@pytest.mark.parametrize("language", LANGUAGES)
def test_several_at_once(tools: Tools, language: str) -> None:
    good, bad = GOOD[language][0], BAD[language][0][0]
    programs = [good, bad] * 4
    with ThreadPoolExecutor(4) as pool:
        verdicts = pool.map(lambda p: tools[language].check(p, wall_seconds=20), programs)
        assert [verdict.status for verdict in verdicts] == ["passed", "failed"] * 4


CANONICAL_FAILURES: dict[str, dict[int, str]] = {
    "python": {},
    "java": {},
    "cpp": {22: "boost", 137: "boost"},
    "javascript": {112: "Assertion", 155: "Assertion", 162: "js-md5"},
}


@pytest.mark.shared
@pytest.mark.parametrize("language", LANGUAGES)
def test_canonical_solutions(tools: Tools, language: str) -> None:
    """A sample, and all that are known not to pass, with the reason."""
    tool = tools[language]
    with gzip.open(shared(FILES[language]), "rt", encoding="utf-8") as file:
        rows: list[dict[str, Any]] = [json.loads(line) for line in file]
    expected = CANONICAL_FAILURES[language]
    for number in sorted({*range(0, 164, 20), *expected}):
        row = rows[number]
        program = row["prompt"] + row["canonical_solution"] + row["test"]
        verdict = tool.check(program, wall_seconds=20)
        if number in expected and verdict.status != "passed":  # boost may be there
            assert expected[number] in verdict.detail
        else:
            assert verdict.status == "passed", (row["task_id"], verdict)
            assert expected.get(number, "boost") == "boost"
