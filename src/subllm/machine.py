"""The machine, and what this process may use of it."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path, PurePosixPath

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


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
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return None
    name = next((line[3:] for line in lines if line.startswith("0::/")), None)
    if name is None:
        return None
    inside = PurePosixPath(name.lstrip("/"))
    limits = [_limit(groups / part / "cpu.max") for part in (inside, *inside.parents)]
    return min((limit for limit in limits if limit is not None), default=None)


def _limit(path: Path) -> float | None:
    """`<microseconds> <period>`; `max` where there is no limit."""
    try:
        quota, period = path.read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
