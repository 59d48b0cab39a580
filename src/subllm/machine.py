"""The machine, and what this process may use of it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import os
import platform
from pathlib import Path, PurePosixPath

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
_ARENA_MAX = -8  # what glibc's malloc.h calls M_ARENA_MAX


def cpu_name() -> str:
    """As the system calls it, e.g. AMD EPYC 9754."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Cores that this process may keep busy: its affinity, or less where its control
    groups (a container's limit of CPUs) grant less time, rounded up."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = cpu_quota()
    return max(1, min(allowed or 1, math.ceil(quota) if quota else allowed or 1))


def cpu_quota(own: Path = _OWN_CGROUP, groups: Path = _CGROUPS) -> float | None:
    """CPU time per time that version 2 control groups grant; None without a limit.

    own, groups  where the kernel names this process's group and where the tree is mounted
    """
    limits = [_limit(group / "cpu.max") for group in _own_groups(own, groups)]
    return min((limit for limit in limits if limit is not None), default=None)


def _own_groups(own: Path, groups: Path) -> list[Path]:
    """The folders of this process's version 2 group and of those around it."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return []
    name = next((line[3:] for line in lines if line.startswith("0::/")), None)
    if name is None:
        return []
    inside = PurePosixPath(name.lstrip("/"))
    return [groups / part for part in (inside, *inside.parents)]


def _limit(path: Path) -> float | None:
    """`<microseconds> <period>`; `max` where there is no limit."""
    try:
        quota, period = path.read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def free_memory(own: Path = _OWN_CGROUP, groups: Path = _CGROUPS) -> int:
    """Bytes that processes may still take without swapping, here and in this process's control
    groups; `own` and `groups` as for `cpu_quota`."""
    import psutil

    left = [int(psutil.virtual_memory().available)]
    for group in _own_groups(own, groups):
        try:
            limit = int((group / "memory.max").read_text())  # "max" is none
            used = int((group / "memory.current").read_text())
            stat = (group / "memory.stat").read_text().split()
        except (OSError, ValueError):
            continue
        cached = int(stat[stat.index("inactive_file") + 1]) if "inactive_file" in stat else 0
        left.append(max(0, limit - used + cached))
    return min(left)


def give_memory_back(*, collect: bool = False) -> None:
    """Lets the system have what was freed: the C library keeps it otherwise, for later.

    collect  first look for what nobody can reach any more: all threads wait for some 60 ms"""
    if collect:
        gc.collect()
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # another C library; on Windows, None
        return
    trim(0)


def one_heap() -> None:
    """From now on all threads allocate in one heap, of which `give_memory_back` gives back all that
    is free. Of the heaps that glibc makes for threads it leaves the end as it is, and that end is
    as large as what was once in use. Nothing where the C library is another one."""
    # A thread that has a heap of its own keeps it: called before there are threads.
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)
