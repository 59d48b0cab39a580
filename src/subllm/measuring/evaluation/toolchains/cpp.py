"""C++: g++ as C++17, without optimisation, which is what compiles and runs fastest."""

from __future__ import annotations

import re
from dataclasses import replace

from subllm.errors import ToolchainMissingError
from subllm.measuring.evaluation.sandbox import Outcome, Sandbox
from subllm.measuring.evaluation.toolchains import preamble
from subllm.measuring.evaluation.toolchains.verdict import (
    MIB,
    Tool,
    Verdict,
    find,
    inside,
    judge,
    last_line,
    limits,
    new_secret,
    verdict_of,
)

_MISSING = "C++ needs g++: apt install g++"
STANDARD = ("-std=c++17", "-O0", "-w")
_COMPILE_MEMORY = 1024 * MIB
_MEMORY = 512 * MIB
_PROCESSES = 16
_ERROR = re.compile(r"(?:fatal )?error: .*|undefined reference to .*")
_HEADER = re.compile(r"fatal error: (\S+): No such file or directory")
_PACKAGES = {"boost/": "libboost-dev", "openssl/": "libssl-dev", "gmp": "libgmp-dev"}
_LIBRARIES = {"openssl/": ("-lcrypto",), "gmp": ("-lgmp",)}


class CppToolchain:
    """Compiles and links in one run of the sandbox, runs the program in another.

    The end is a return of 0 from `main`, which the linker wraps; `exit(0)` is no end.
    Where a program includes a header that is not on this machine the verdict is
    "compile_error" and its detail names the header and, for common ones, the package.
    """

    language = "cpp"

    def __init__(self, sandbox: Sandbox, *, compile_seconds: float = 30.0) -> None:
        """Raises ToolchainMissingError."""
        self._compile_limits = limits(
            compile_seconds, memory=_COMPILE_MEMORY, processes=_PROCESSES, files=256 * MIB
        )
        self._sandbox = sandbox
        self._preambles = preamble.Preambles(sandbox.scratch("cpp"), self._precompile)
        self._tool = Tool(sandbox, find("g++", _MISSING))
        self._version = self._tool.version("--version", _MISSING, _COMPILE_MEMORY)
        self._wrapper = self._compile_wrapper()
        # Half the time of the usual linker, where it is there.
        fast = self._compile("int main() {}", ("-fuse-ld=gold",)).exit_code == 0
        self._linker: tuple[str, ...] = ("-fuse-ld=gold",) if fast else ()

    def version(self) -> str:
        return self._version

    def check(self, program: str, *, wall_seconds: float) -> Verdict:
        compiled = self._compile(program, self._linker)
        if "a.out" not in compiled.files:
            verdict = verdict_of(compiled, "compile_error", _explain)
            if verdict.status in ("timeout", "memory"):
                return replace(verdict, detail=f"the compiler {verdict.detail}")
            return verdict
        secret = new_secret()
        outcome = self._sandbox.run(
            ["./a.out"],
            files={"a.out": compiled.files["a.out"]},
            stdin=secret,
            limits=limits(wall_seconds, memory=_MEMORY, processes=_PROCESSES),
        )
        verdict = judge(outcome, secret, last_line)
        return replace(verdict, seconds=compiled.seconds + verdict.seconds)

    def _compile(self, program: str, options: tuple[str, ...]) -> Outcome:
        libraries = [
            option
            for header, options in _LIBRARIES.items()
            if re.search(rf"#\s*include\s*<{header}", program)
            for option in options
        ]
        includes, rest = preamble.split(program)
        compiled = self._preambles.find(includes)
        if compiled is not None:
            options = (*options, "-include", str(compiled / preamble.HEADER))
        return self._tool.run(
            [*STANDARD, *options, "program.cpp", "reached.o", "-Wl,--wrap=main", *libraries],
            files={
                "program.cpp": program if compiled is None else rest,
                "reached.o": self._wrapper,
            },
            limits=self._compile_limits,
            read_only=[] if compiled is None else [compiled],
            collect=["a.out"],
        )

    def _precompile(self, text: str) -> bytes | None:
        result = f"{preamble.HEADER}.gch"
        outcome = self._tool.run(
            [*STANDARD, "-x", "c++-header", preamble.HEADER, "-o", result],
            files={preamble.HEADER: text},
            limits=self._compile_limits,
            collect=[result],
        )
        return outcome.files.get(result) if outcome.exit_code == 0 else None

    def _compile_wrapper(self) -> bytes:
        outcome = self._tool.run(
            ["-x", "c", "-O1", "-c", "reached.c"],
            files={"reached.c": inside("reached.c")},
            limits=self._compile_limits,
            collect=["reached.o"],
        )
        if "reached.o" not in outcome.files:
            said = last_line(outcome) or outcome.status
            raise ToolchainMissingError(f"g++ cannot compile ({said}); {_MISSING}")
        return outcome.files["reached.o"]


def _explain(outcome: Outcome) -> str:
    missing = _HEADER.search(outcome.stderr)
    if missing:
        header = missing[1]
        package = next((p for start, p in _PACKAGES.items() if header.startswith(start)), None)
        hint = f"apt install {package}" if package else "install what it belongs to"
        return f"the header {header} is not on this machine; {hint}"
    found = _ERROR.search(outcome.stderr)
    return found[0] if found else last_line(outcome)
