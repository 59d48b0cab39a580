"""Sandboxes for tests, and a look at what they may have left behind."""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from subllm.errors import SandboxError
from subllm.measuring.evaluation.sandbox import Limits, Outcome, Sandbox

MIB = 1 << 20
LIMITS = Limits(
    wall_seconds=10.0,
    cpu_seconds=10.0,
    memory_bytes=128 * MIB,
    processes=16,
    file_bytes=8 * MIB,
    disk_bytes=16 * MIB,
    open_files=64,
    output_bytes=1 << 16,
)
SYSTEM_PYTHON = Path("/usr/bin/python3")


# Ways to contain programs, each of which the tests try where the machine allows it: with the
# rights and control groups that there are, and as anybody may.
WAYS = ["as this user", "rootless"]


@contextmanager
def sandbox_or_skip(way: str = "as this user") -> Iterator[Sandbox]:
    """A sandbox; skips, with the reason, where this machine cannot contain programs."""
    if way == "rootless" and os.geteuid() != 0:
        pytest.skip("as this user: it is not root")
    try:
        sandbox = Sandbox(rootless=way == "rootless")
    except SandboxError as error:
        pytest.skip(f"PROGRAMS CANNOT BE CONTAINED HERE: {error}")
    with sandbox:
        yield sandbox


class PythonRuns:
    """Runs Python programs in a sandbox, with whatever interpreter it can show."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        base = Path(sys.base_prefix)
        self.program = str(Path(getattr(sys, "_base_executable", sys.executable)).resolve())
        self.read_only = [] if base == Path("/usr") else [base]
        try:
            works = self("print(1)").stdout == "1\n"
        except SandboxError:
            works = False  # it may lie in the home of a root whom the sandbox is not
        if not works:
            if not SYSTEM_PYTHON.exists():
                pytest.skip("NO PYTHON THAT ANOTHER USER MAY READ: apt install python3")
            self.program, self.read_only = str(SYSTEM_PYTHON), []

    def __call__(
        self,
        program: str,
        *,
        limits: Limits = LIMITS,
        stdin: bytes = b"",
        collect: tuple[str, ...] = (),
    ) -> Outcome:
        return self.sandbox.run(
            [self.program, "-I", "-S", "program.py"],
            files={"program.py": program},
            stdin=stdin,
            limits=limits,
            read_only=self.read_only,
            collect=collect,
        )


def word(name: str) -> str:
    """A word to find processes by that no other test run has."""
    return f"{name}-{uuid.uuid4().hex}"


def processes_with(token: str, *, patience: float = 2.0) -> list[str]:
    """Command lines of this machine's processes that hold `token`, when all had time to end."""
    deadline = time.monotonic() + patience
    while found := _command_lines(token):
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    return found


def _command_lines(token: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has ended
        if token in line:
            found.append(line)
    return found
