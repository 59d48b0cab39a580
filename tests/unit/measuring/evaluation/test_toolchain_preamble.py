"""Includes that many C++ programs share: found exactly, compiled once, never changing a verdict."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from subllm.errors import ToolchainMissingError
from subllm.measuring.evaluation.sandbox import Sandbox
from subllm.measuring.evaluation.toolchains import preamble
from subllm.measuring.evaluation.toolchains.cpp import CppToolchain
from subllm.measuring.evaluation.toolchains.preamble import Preambles, split

from .sandboxes import sandbox_or_skip


@pytest.mark.parametrize(
    ("program", "includes"),
    [
        ("#include<vector>\n#include <map> \nint x;\n", "#include<vector>\n#include <map>\n"),
        ("/*\n#include <no>\n*/\n\n// x\n  # include <a/b.h>\nint x;", "# include <a/b.h>\n"),
        ("int x;\n#include <map>\n", ""),
        ("#define NDEBUG\n#include <assert.h>\n", ""),
        ("#include <assert.h>\n#undef NDEBUG\n#include <assert.h>\n", "#include <assert.h>\n"),
        ('#include "vector"\n#include <map>\n', ""),
        ("#include </etc/passwd>\n", ""),
        ("#include <../x>\n", ""),
        ("#include <a/../../x>\n", ""),
        ("#include <map> // why\n#include <set>\n", ""),
        ("#include <map> int x;\n", ""),
        ("#include <map>\\\n", ""),
        ("// a comment \\\n#include <map>\nint x;\n", ""),
        ("/* a */ int x; /* b */\n#include <map>\n", ""),
        ("#include <map>", "#include <map>\n"),
        ("", ""),
    ],
)
def test_split(program: str, includes: str) -> None:
    found, rest = split(program)
    assert found == includes
    # What is taken out leaves empty lines, so that messages name the right one.
    lines, left = program.split("\n"), rest.split("\n")
    assert [a for a, b in zip(lines, left, strict=False) if a != b and b == ""] == [
        line for line in lines if line.strip() in includes.splitlines() and includes
    ][: includes.count("\n")]
    assert all(a == b or b == "" for a, b in zip(lines, left, strict=False))


def test_compiled_for_the_third_use_and_once(tmp_path: Path) -> None:
    made = []

    def compile(text: str) -> bytes | None:
        made.append(text)
        return None if "bad" in text else b"compiled"

    preambles = Preambles(tmp_path, compile)
    good, bad = "#include <a>\n", "#include <bad>\n"
    assert [preambles.find(good) for _ in range(2)] == [None, None]
    directory = preambles.find(good)
    assert directory is not None
    assert (directory / "preamble.hpp").read_text() == good
    assert (directory / "preamble.hpp.gch").read_bytes() == b"compiled"
    assert preambles.find(good) == directory
    assert [preambles.find(bad) for _ in range(5)] == [None] * 5
    assert [preambles.find("") for _ in range(5)] == [None] * 5
    assert made == [good, bad]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with sandbox_or_skip() as sandbox:
        yield sandbox


def test_verdicts_stay_the_same(sandbox: Sandbox) -> None:
    """Before and after the preamble is compiled; one missing include is still an error."""
    try:
        tool = CppToolchain(sandbox)
    except ToolchainMissingError as error:
        pytest.skip(f"NO TOOL CHAIN: {error}")
    head = "#include <vector>\n#include <cassert>\n"
    programs = [
        head + "int main() { std::vector<int> x(3); assert(x.size() == 3); }",
        head + "int main() { std::vector<int> x(3); assert(x.size() == 2); }",
        head + "int main() { std::map<int, int> x; }",
        head + "int main() {\n  assert(1 == 2);\n}",
    ]
    rounds = [[tool.check(p, wall_seconds=20) for p in programs] for _ in range(3)]
    assert tool._preambles.find(head) is not None
    found = [[(verdict.status, verdict.detail) for verdict in verdicts] for verdicts in rounds]
    assert found[0] == found[1] == found[2]
    assert [status for status, _ in found[0]] == ["passed", "failed", "compile_error", "failed"]
    assert "program.cpp:4:" in found[0][3][1]


def test_the_compiled_form_is_used(sandbox: Sandbox, tmp_path: Path) -> None:
    """A header that lies beside a compiled one of another text: the compiled one wins."""
    try:
        tool = CppToolchain(sandbox)
    except ToolchainMissingError as error:
        pytest.skip(f"NO TOOL CHAIN: {error}")
    compiled = tool._precompile("#include <vector>\n#define WHICH 0\n")
    assert compiled is not None
    directory = sandbox.scratch("test")
    (directory / preamble.HEADER).write_text("#define WHICH 1\n")
    (directory / f"{preamble.HEADER}.gch").write_bytes(compiled)
    tool._preambles._ready["#include <vector>\n"] = directory
    program = "#include <vector>\nint main() { return WHICH; }"
    assert tool.check(program, wall_seconds=20).status == "passed"
