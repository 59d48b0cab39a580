"""Control groups: the kernel's own limit on the memory of a whole run.

Version 2 where a group above this process's may be given children, version 1 where the
directory for memory can be written. Groups of harnesses that were killed are swept at the
next start.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_PREFIX = "subllm-"
_RETRIES = 50
_PAUSE = 0.002  # seconds
_OWN_MEMORY = 16 << 20  # of bubblewrap and the shell in it


@dataclass(frozen=True)
class Group:
    """A directory of the kernel's: of all runs of a sandbox, or of one run at a time."""

    version: int
    directory: Path

    def child(self, name: str) -> Group:
        """Make the group of a run, or take over its predecessor's; raises OSError."""
        (self.directory / name).mkdir(exist_ok=True)
        return Group(self.version, self.directory / name)

    def limit(self, memory_bytes: int) -> None:
        """Set the limit of the next run."""
        size = str(memory_bytes + _OWN_MEMORY)
        if self.version == 2:
            self._write("memory.max", size)
            with suppress(OSError):  # a kernel without swap accounting
                self._write("memory.swap.max", "0")
            return
        # Memory with swap may not be less than memory: it goes out of the way first.
        with suppress(OSError):
            self._write("memory.memsw.limit_in_bytes", "-1")
        self._write("memory.limit_in_bytes", size)
        with suppress(OSError):
            self._write("memory.memsw.limit_in_bytes", size)

    def _write(self, name: str, value: str) -> None:
        (self.directory / name).write_text(value)

    def kills(self) -> int:
        """How often the kernel has killed something here for want of memory, so far."""
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        with suppress(OSError):
            for line in (self.directory / name).read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
        return 0

    def remove(self, retries: int = _RETRIES) -> None:
        """Remove it and those of runs; the kernel may take a moment to see that they ended."""
        with suppress(OSError):
            for each in self.directory.iterdir():
                if each.is_dir():
                    Group(self.version, each).remove(retries)
        for _ in range(retries):
            try:
                self.directory.rmdir()
            except FileNotFoundError:
                return
            except OSError:
                time.sleep(_PAUSE)
            else:
                return


def find() -> Group | None:
    """A group for this process's runs, if there may be one."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            own = _ROOT / controllers / path.lstrip("/")
            with suppress(OSError):
                return _make(1, own)
        elif not controllers:
            # With processes in it a group may not give its controllers to children, so above.
            own = _ROOT / path.lstrip("/")
            for directory in (own, *own.parents):
                if directory.is_relative_to(_ROOT):
                    with suppress(OSError):
                        return _make(2, directory)
    return None


def _make(version: int, above: Path) -> Group:
    for left in above.glob(f"{_PREFIX}*"):
        owner = left.name.removeprefix(_PREFIX).split("-")[0]
        if owner.isdecimal() and not Path("/proc", owner).exists():
            Group(version, left).remove(retries=1)
    if version == 2:
        control = above / "cgroup.subtree_control"
        if "memory" not in control.read_text().split():
            control.write_text("+memory")
    group = Group(version, above / f"{_PREFIX}{os.getpid()}-{time.monotonic_ns()}")
    group.directory.mkdir()
    if version == 2:
        try:
            (group.directory / "cgroup.subtree_control").write_text("+memory")
        except OSError:
            group.directory.rmdir()
            raise
    return group
