"""What programs of each language may try, through their tool chains: all contained.

After every attack nothing of it runs, the machine's files are as they were, nobody has
connected, and the tool chain judges a good and a bad program as before.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from subllm.errors import ToolchainMissingError
from subllm.measuring.evaluation.sandbox import Sandbox
from subllm.measuring.evaluation.toolchains import Toolchain, Verdict, toolchain
from subllm.measuring.evaluation.toolchains.cpp import CppToolchain
from subllm.measuring.evaluation.toolchains.java import JavaToolchain

from .attack_programs import ATTACKS, COMPILER_HANGS, SURVIVORS
from .sandboxes import processes_with, sandbox_or_skip, word

LANGUAGES = ["python", "java", "cpp", "javascript"]
TOKEN = word("toolchain-attack-token")
AFTER = {
    "python": ("assert 1", "assert 0"),
    "java": (
        "public class Main { public static void main(String[] a) {} }",
        "public class Main { public static void main(String[] a) { assert false; } }",
    ),
    "cpp": ("int main() {}", "int main() { return 1; }"),
    "javascript": ("console.assert(1)", "console.assert(0)"),
}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with sandbox_or_skip() as sandbox:
        yield sandbox


@pytest.fixture(scope="module", params=LANGUAGES)
def tool(request: pytest.FixtureRequest, sandbox: Sandbox) -> Toolchain:
    try:
        return toolchain(request.param, sandbox)
    except ToolchainMissingError as error:
        pytest.skip(f"NO TOOL CHAIN: {error}")


class Target:
    """A private file and a server that nobody should reach."""

    def __init__(self, directory: Path, server: socket.socket) -> None:
        self._canary = directory / "canary"
        self._canary.write_text("private")
        self._canary.chmod(0o666)
        self._server = server
        server.setblocking(False)

    def attack(self, tool: Toolchain, program: str, *, seconds: float = 3.0) -> Verdict:
        program = program.replace("CANARY", str(self._canary)).replace("TOKEN", TOKEN)
        program = program.replace("PORT", str(self._server.getsockname()[1]))
        began = time.monotonic()
        verdict = tool.check(program, wall_seconds=seconds)
        assert time.monotonic() - began < 3 * seconds + 15
        assert processes_with(TOKEN) == []
        assert self._canary.read_text() == "private"
        with pytest.raises(BlockingIOError):
            self._server.accept()
        good, bad = AFTER[tool.language]
        assert tool.check(good, wall_seconds=20).status == "passed"
        assert tool.check(bad, wall_seconds=20).status == "failed"
        return verdict


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Target(tmp_path, server)


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_fail(tool: Toolchain, target: Target, name: str) -> None:
    if tool.language not in ATTACKS[name]:
        pytest.skip("started through another program there, which other languages show")
    seconds = 2.0 if "bomb" in name else 8.0
    verdict = target.attack(tool, ATTACKS[name][tool.language], seconds=seconds)
    assert verdict.status not in ("passed", "compile_error", "error"), verdict


@pytest.mark.parametrize("name", SURVIVORS)
def test_nothing_is_killed_and_nothing_stays(tool: Toolchain, target: Target, name: str) -> None:
    verdict = target.attack(tool, SURVIVORS[name][tool.language])
    assert verdict.status != "compile_error", verdict
    if name == "leaving daemons behind":
        assert verdict.status == "passed", verdict


@pytest.mark.parametrize("name", COMPILER_HANGS["cpp"])
def test_hanging_in_the_cpp_compiler(sandbox: Sandbox, target: Target, name: str) -> None:
    try:
        tool = CppToolchain(sandbox, compile_seconds=3.0)
    except ToolchainMissingError as error:
        pytest.skip(f"NO TOOL CHAIN: {error}")
    verdict = target.attack(tool, COMPILER_HANGS["cpp"][name])
    assert verdict.status in ("timeout", "memory", "compile_error"), verdict


@pytest.mark.parametrize("name", COMPILER_HANGS["java"])
def test_hanging_in_the_java_compiler(sandbox: Sandbox, target: Target, name: str) -> None:
    try:
        tool = JavaToolchain(sandbox, compile_seconds=4.0)
    except ToolchainMissingError as error:
        pytest.skip(f"NO TOOL CHAIN: {error}")
    verdict = target.attack(tool, COMPILER_HANGS["java"][name])
    assert verdict.status in ("timeout", "memory", "compile_error"), verdict
    expected = {"nested finally": "timeout", "growing constant": "memory"}
    assert verdict.status == expected.get(name, verdict.status)
