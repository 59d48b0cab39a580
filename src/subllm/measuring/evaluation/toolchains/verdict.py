"""What is said of a program, and how the run of one is judged.

A program is a candidate followed by its tests. It passes only if its end is reached:
exit status 0 is not enough, for a candidate may leave early (`sys.exit()`, `exit(0)`,
`process.exit()`, a stray `return`) before the first test. So each run gets a secret, new
every time, on standard input; what each language runs around the program reads it first
and writes it to standard output once the program has come to its end without an error.

What this does not cover: the tests run in the process of the candidate, so one that is
written to cheat can find the secret in its process's memory, replace what the tests
call, or make everything equal to everything. Completions of a model do not do so by
accident.
"""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from subllm.errors import ToolchainMissingError
from subllm.measuring.evaluation.sandbox import Limits, Outcome, Sandbox

Status = Literal["passed", "failed", "timeout", "memory", "compile_error", "error"]

MIB = 1 << 20
SYNTAX = 97  # exit status of our runners for a program that does not even parse
_DETAIL = 300  # characters
# What languages say when an allocation fails, which ends a program before the kernel does.
_OUT_OF_MEMORY = re.compile(
    r"MemoryError|std::bad_alloc|OutOfMemoryError|heap out of memory|out of memory allocating"
    r"|virtual memory exhausted|insufficient memory for the Java Runtime"
)
_INSIDE = Path(__file__).with_name("inside")


@dataclass(frozen=True)
class Verdict:
    """`status` and `detail`, one line on why; `seconds` to compile and run.

    "failed" is an error of the program or a test, or an end before the last test;
    "timeout" and "memory" also cover the compiler; "compile_error" includes syntax errors
    of languages without a compiler; "error" says that the program was not judged.
    """

    status: Status
    detail: str
    seconds: float


class Toolchain(Protocol):
    """Compiles and runs programs of one language; several threads may use one at a time."""

    language: str

    def version(self) -> str:
        """Name and version of compiler or interpreter."""
        ...

    def check(self, program: str, *, wall_seconds: float) -> Verdict:
        """Compile and run `program`, tests included; `wall_seconds` bounds its run."""
        ...


def limits(seconds: float, *, memory: int, processes: int, files: int = 16 * MIB) -> Limits:
    """Limits for a run of one program or compiler; `memory` and `files` in bytes."""
    return Limits(
        wall_seconds=seconds,
        cpu_seconds=seconds,
        memory_bytes=memory,
        processes=processes,
        file_bytes=files,
        disk_bytes=2 * files,
        open_files=256,
        output_bytes=MIB,
    )


def inside(name: str) -> str:
    """Text of a file of ours that runs around the program."""
    return (_INSIDE / name).read_text(encoding="utf-8")


def new_secret() -> bytes:
    """What only a program's end may write."""
    return secrets.token_hex(16).encode()


def judge(outcome: Outcome, secret: bytes, explain: Callable[[Outcome], str]) -> Verdict:
    """What became of the program of a run that got `secret` as standard input.

    `explain` finds in a failed run's error output the line that says why.
    """
    if outcome.status != "exited" or outcome.exit_code != 0:
        status: Status = "compile_error" if outcome.exit_code == SYNTAX else "failed"
        return verdict_of(outcome, status, explain)
    if secret.decode() not in outcome.stdout:
        return Verdict("failed", "left before the end of the tests", outcome.seconds)
    return Verdict("passed", "", outcome.seconds)


def verdict_of(outcome: Outcome, status: Status, explain: Callable[[Outcome], str]) -> Verdict:
    """The verdict on an outcome that is no success; `status` if the program ended by itself."""
    if outcome.status == "timeout":
        return Verdict("timeout", f"ran for {outcome.seconds:.1f} s", outcome.seconds)
    if outcome.status == "memory" or (outcome.exit_code and _OUT_OF_MEMORY.search(outcome.stderr)):
        return Verdict("memory", "used more memory than it may", outcome.seconds)
    if outcome.status == "output":
        return Verdict("failed", "wrote more than it may", outcome.seconds)
    if outcome.status == "killed":
        return Verdict("failed", "was killed", outcome.seconds)
    why = explain(outcome) or f"exit status {outcome.exit_code}"
    return Verdict(status, one_line(why), outcome.seconds)


def one_line(text: str) -> str:
    """`text` as a detail of a verdict."""
    return " ".join(text.split())[:_DETAIL]


def last_line(outcome: Outcome) -> str:
    """The last line of error output that says something."""
    return next((line for line in reversed(outcome.stderr.splitlines()) if line.strip()), "")


class Tool:
    """A program of this machine that runs in the sandbox, and what it needs to be shown."""

    def __init__(self, sandbox: Sandbox, path: str | Path, *, root: Path | None = None) -> None:
        """`root` is where it is installed: two levels up by default."""
        self.path = Path(path).resolve()
        home = root or self.path.parent.parent
        system = any(self.path.is_relative_to(top) for top in ("/usr/bin", "/usr/lib", "/bin"))
        self.read_only: tuple[Path, ...] = () if system and root is None else (home,)
        self._sandbox = sandbox

    def run(
        self,
        arguments: Sequence[str],
        *,
        limits: Limits,
        files: Mapping[str, bytes | str] | None = None,
        stdin: bytes = b"",
        collect: Sequence[str] = (),
        read_only: Sequence[Path] = (),
    ) -> Outcome:
        return self._sandbox.run(
            [str(self.path), *arguments],
            files=files or {},
            stdin=stdin,
            limits=limits,
            read_only=(*self.read_only, *read_only),
            collect=collect,
        )

    def version(self, flag: str, missing: str, memory: int) -> str:
        """First line of what it says to `flag`; raises ToolchainMissingError."""
        outcome = self.run([flag], limits=limits(30.0, memory=memory, processes=64))
        lines = (outcome.stdout + outcome.stderr).splitlines()
        if outcome.exit_code != 0 or not lines:
            said = last_line(outcome) or outcome.status
            raise ToolchainMissingError(f"{self.path} does not run ({said}); {missing}")
        return lines[0].strip()


def find(name: str, missing: str) -> str:
    """Path of the program `name`; raises ToolchainMissingError, which ends in `missing`."""
    path = shutil.which(name)
    if path is None:
        raise ToolchainMissingError(f"{name} is not on this machine; {missing}")
    return path
