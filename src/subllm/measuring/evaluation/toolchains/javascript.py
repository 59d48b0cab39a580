"""JavaScript: node, with failing assertions of `console` turned into failures."""

from __future__ import annotations

import re

from subllm.measuring.evaluation.sandbox import Outcome, Sandbox
from subllm.measuring.evaluation.toolchains.verdict import (
    MIB,
    SYNTAX,
    Tool,
    Verdict,
    find,
    inside,
    judge,
    last_line,
    limits,
    new_secret,
)

_MISSING = "JavaScript needs node: apt install nodejs"
_MEMORY = 1024 * MIB
_HEAP_MIB = 512
_PROCESSES = 32
_ERROR = re.compile(r"^(?:Uncaught )?(?:\w*Error|Assertion failed)\b.*", re.MULTILINE)


class JavaScriptToolchain:
    """Runs the program as a CommonJS module, as `node program.js` does.

    `console.assert` only prints in node; here a program in which one failed does not pass,
    however its `console` was come by. The end is the end of the program's text and of all
    that it left to the event loop; calling `process.exit` on the way is no end.
    """

    language = "javascript"

    def __init__(self, sandbox: Sandbox) -> None:
        """Raises ToolchainMissingError."""
        self._tool = Tool(sandbox, find("node", _MISSING))
        self._version = "node " + self._tool.version("--version", _MISSING, _MEMORY)
        self._runner = inside("run_program.js")

    def version(self) -> str:
        return self._version

    def check(self, program: str, *, wall_seconds: float) -> Verdict:
        secret = new_secret()
        outcome = self._tool.run(
            # On one thread: a short program is done before helpers have started.
            [f"--max-old-space-size={_HEAP_MIB}", "--single-threaded", "runner.js", str(SYNTAX)],
            files={"runner.js": self._runner, "program.js": program},
            stdin=secret,
            limits=limits(wall_seconds, memory=_MEMORY, processes=_PROCESSES),
        )
        return judge(outcome, secret, _explain)


def _explain(outcome: Outcome) -> str:
    found = _ERROR.search(outcome.stderr)
    return found[0] if found else last_line(outcome)
