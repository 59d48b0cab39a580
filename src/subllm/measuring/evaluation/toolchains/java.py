"""Java: a warm compiler, and a fresh JVM with assertions on for each program."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from subllm.errors import ToolchainMissingError
from subllm.measuring.evaluation.sandbox import Outcome, Sandbox
from subllm.measuring.evaluation.toolchains.javac import CompilerLostError, WarmCompilers
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
    one_line,
)

_MISSING = "Java needs a JDK: apt install default-jdk-headless"
_MEMORY = 1024 * MIB
_HEAP_MIB = 512
_PROCESSES = 64
# Little work at the start: programs live for a tenth of a second.
_OPTIONS = (
    *("-ea", f"-Xmx{_HEAP_MIB}m", "-Xshare:auto", "-XX:TieredStopAtLevel=1"),
    *("-XX:+UseSerialGC", "-XX:-UsePerfData", "-cp", "."),
)
_PUBLIC_CLASS = re.compile(r"\bpublic\s+(?:(?:final|abstract|strictfp)\s+)*class\s+(\w+)")
_MAIN = re.compile(r"\bstatic\s+(?:final\s+)?void\s+main\s*\(")
_ERROR = re.compile(r"(?:Exception in thread \S+ )?((?:\w+\.)+\w*(?:Error|Exception)\b.*)")


class JavaToolchain:
    """The program is one file, named after its public class that has `main`.

    The end is the return of `main`; `System.exit(0)` is no end. Other threads do not keep
    the program alive.
    """

    language = "java"

    def __init__(self, sandbox: Sandbox, *, compile_seconds: float = 30.0) -> None:
        """Raises ToolchainMissingError."""
        self._compile_seconds = compile_seconds
        # Not the `java` of the path, which may be of another version and only a JRE.
        javac = Path(find("javac", _MISSING)).resolve()
        self._java = Tool(sandbox, javac.with_name("java"))
        self._version = self._java.version("-version", _MISSING, _MEMORY)
        self._compilers = WarmCompilers(sandbox, self._java)
        try:
            runner = self._compilers.compile(
                "Runner.java", inside("Runner.java"), seconds=self._compile_seconds
            )
        except CompilerLostError as error:
            raise ToolchainMissingError(f"the Java compiler {error}; {_MISSING}") from error
        if runner.error:
            raise ToolchainMissingError(f"{self._version}: {runner.error}; {_MISSING}")
        self._runner = _files(runner.classes)

    def version(self) -> str:
        return self._version

    def check(self, program: str, *, wall_seconds: float) -> Verdict:
        main = _main_class(program)
        try:
            compiled = self._compilers.compile(
                f"{main}.java", program, seconds=self._compile_seconds
            )
        except CompilerLostError as error:
            if error.timed_out:
                seconds = self._compile_seconds
                return Verdict("timeout", f"the compiler ran for {seconds:.1f} s", seconds)
            return Verdict("compile_error", "ended the compiler", 0.0)
        if compiled.error:
            memory = "OutOfMemoryError" in compiled.error
            return Verdict(
                "memory" if memory else "compile_error", one_line(compiled.error), compiled.seconds
            )
        secret = new_secret()
        outcome = self._java.run(
            [*_OPTIONS, "Runner", main],
            # Ours last: a program may have a class of that name too.
            files=_files(compiled.classes) | self._runner,
            stdin=secret,
            limits=limits(wall_seconds, memory=_MEMORY, processes=_PROCESSES),
        )
        verdict = judge(outcome, secret, _explain)
        return replace(verdict, seconds=compiled.seconds + verdict.seconds)


def _files(classes: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{name.replace('.', '/')}.class": code for name, code in classes.items()}


def _main_class(program: str) -> str:
    """The public class nearest before the last `main`, or Main."""
    mains = list(_MAIN.finditer(program))
    end = mains[-1].start() if mains else len(program)
    names = [found[1] for found in _PUBLIC_CLASS.finditer(program, 0, end)]
    return names[-1] if names else "Main"


def _explain(outcome: Outcome) -> str:
    found = _ERROR.search(outcome.stderr)
    return found[1] if found else last_line(outcome)
