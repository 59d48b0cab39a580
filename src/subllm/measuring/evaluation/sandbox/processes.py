"""The processes of a run, seen from outside: how many, how large, how busy.

Counting through /proc is the fall-back where no control group counts for us, and how CPU
time of several processes is added up.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """`memory_bytes` counts a page shared by two processes twice."""

    threads: int
    memory_bytes: int
    cpu_seconds: float


def below(process: int) -> Iterator[int]:
    """`process` and its descendants; orphans of a run belong to its process 1."""
    waiting = [process]
    while waiting:
        current = waiting.pop()
        yield current
        with suppress(OSError):
            for thread in Path(f"/proc/{current}/task").iterdir():
                with suppress(OSError):
                    waiting += map(int, (thread / "children").read_bytes().split())


def usage(process: int) -> Usage:
    """What the descendants of `process` use, itself not counted but for reaped children."""
    threads = pages = ticks = 0
    for pid in below(process):
        with suppress(OSError, IndexError):
            # The second field may hold spaces and parentheses of the program's choice.
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            ticks += sum(map(int, fields[13:15]))  # of children that were waited for
            if pid != process:
                ticks += sum(map(int, fields[11:13]))
                threads += int(fields[17])
                pages += int(fields[21])
    return Usage(threads, pages * _PAGE, ticks / _TICKS)
