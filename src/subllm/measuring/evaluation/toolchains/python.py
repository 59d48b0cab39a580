"""Python: the interpreter that runs subllm, with the standard library only."""

from __future__ import annotations

import sys
from pathlib import Path

from subllm.measuring.evaluation.sandbox import Sandbox
from subllm.measuring.evaluation.toolchains.verdict import (
    MIB,
    SYNTAX,
    Tool,
    Verdict,
    inside,
    judge,
    last_line,
    limits,
    new_secret,
)

_MEMORY = 512 * MIB
_PROCESSES = 16


class PythonToolchain:
    """Runs the program as a module named `program`, so `__main__` blocks do not run.

    That is how HumanEval's own harness executes programs, and saves them from code after
    the function that reads input. What other packages are installed makes no difference.
    """

    language = "python"

    def __init__(self, sandbox: Sandbox) -> None:
        """Raises ToolchainMissingError."""
        # Of a virtual environment the interpreter it was made from.
        program = Path(getattr(sys, "_base_executable", sys.executable))
        root = Path(sys.base_prefix)
        system = root == Path("/usr")
        self._tool = Tool(sandbox, program, root=None if system else root)
        self._version = self._tool.version("--version", "apt install python3", _MEMORY)
        self._runner = inside("run_program.py")

    def version(self) -> str:
        return self._version

    def check(self, program: str, *, wall_seconds: float) -> Verdict:
        secret = new_secret()
        outcome = self._tool.run(
            ["-I", "-S", "-B", "runner.py", str(SYNTAX)],
            files={"runner.py": self._runner, "program.py": program},
            stdin=secret,
            limits=limits(wall_seconds, memory=_MEMORY, processes=_PROCESSES),
        )
        return judge(outcome, secret, last_line)
