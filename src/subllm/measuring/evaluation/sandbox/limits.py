"""What a program may use, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Status = Literal["exited", "timeout", "memory", "output", "killed"]


@dataclass(frozen=True)
class Limits:
    """Bounds for one run; a run that reaches one is ended or sees an error, never the host.

    `wall_seconds` and `cpu_seconds` count from the program's start; CPU time is that of
    all its processes. `memory_bytes` is for all processes together, what they keep in
    files included. `processes` counts threads too. `file_bytes` is the largest file,
    `disk_bytes` all files together, `output_bytes` what may be written to either of
    standard output and standard error.
    """

    wall_seconds: float
    cpu_seconds: float
    memory_bytes: int
    processes: int
    file_bytes: int
    disk_bytes: int
    open_files: int
    output_bytes: int


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    `status` is "exited" (by itself; `exit_code` is negative where a signal ended it, as
    in `subprocess`), "timeout" (wall or CPU time), "memory", "output" (wrote too much), or
    "killed" (ended from outside). Output is decoded as UTF-8 with replacement characters
    and cut at the limit, which `stdout_truncated` and `stderr_truncated` say. `files` are
    the collected ones that were there as regular files.
    """

    status: Status
    exit_code: int | None
    stdout: str
    stderr: str
    seconds: float
    cpu_seconds: float
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
