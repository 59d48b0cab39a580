"""Control groups: the kernel's own limit on memory and processes of a whole run.

Both generations are used as they are found: version 2 where this process has a subtree to
itself (systemd delegates one) or is root of the tree, version 1 where its directories for
memory and pids can be written. Each keeper has a group below the launcher's `subllm-PID`
and lives in it, so that its runs are born there: moving a process takes the kernel 10 ms.
Groups of launchers that were killed are swept at the next start.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from subllm.measuring.evaluation.sandbox.limits import Limits

ROOT = Path("/sys/fs/cgroup")
_PREFIX = "subllm-"
_RETRIES = 50
_PAUSE = 0.002  # seconds
_OWN_PROCESSES = 2  # of a group: the keeper and process 1
_OWN_MEMORY = 16 << 20


@dataclass(frozen=True)
class Base:
    """Where runs get their groups: one directory (version 2) or those of memory and pids.

    `leaf` is the group that this process had to move into, for others to remove.
    """

    version: int
    memory: Path
    pids: Path
    leaf: Path | None = None

    def group(self, name: str) -> Group:
        """Make the group of a keeper, or take over its predecessor's; raises OSError."""
        group = Group(self.version, self.memory / name, self.pids / name)
        for directory in {group.memory, group.pids}:
            directory.mkdir(exist_ok=True)
        return group

    def remove(self) -> None:
        """Remove all groups, every process in them having ended."""
        for directory in {self.memory, self.pids}:
            _remove_tree(directory)


@dataclass(frozen=True)
class Group:
    """A keeper's group: itself, process 1 of its run, and the run's program."""

    version: int
    memory: Path
    pids: Path

    def join(self) -> None:
        """Move the calling process into the group; its children are born there."""
        for directory in {self.memory, self.pids}:
            (directory / "cgroup.procs").write_text("0")

    def limit(self, limits: Limits) -> None:
        """Set the limits of the next run."""
        size = str(limits.memory_bytes + _OWN_MEMORY)
        (self.pids / "pids.max").write_text(str(limits.processes + _OWN_PROCESSES))
        if self.version == 2:
            (self.memory / "memory.max").write_text(size)
            with suppress(OSError):  # a kernel without swap accounting
                (self.memory / "memory.swap.max").write_text("0")
            return
        # Memory with swap may not be less than memory: it goes out of the way first.
        with suppress(OSError):
            (self.memory / "memory.memsw.limit_in_bytes").write_text("-1")
        (self.memory / "memory.limit_in_bytes").write_text(size)
        with suppress(OSError):
            (self.memory / "memory.memsw.limit_in_bytes").write_text(size)

    def kills(self) -> int:
        """How often the kernel has killed something here for want of memory, so far."""
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        with suppress(OSError):
            for line in (self.memory / name).read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
        return 0


def find() -> tuple[Base | None, str]:
    """A base for this process's runs, and in words which it is or why there is none."""
    own = _own_groups()
    reasons = []
    if "" in own:
        try:
            return _version_2(own[""]), "control groups version 2"
        except OSError as error:
            reasons.append(str(error))
    if {"memory", "pids"} <= own.keys():
        try:
            return _version_1(own["memory"], own["pids"]), "control groups version 1"
        except OSError as error:
            reasons.append(str(error))
    return None, "; ".join(reasons) or "no control groups for memory and pids are mounted here"


def _own_groups() -> dict[str, Path]:
    """Directory of this process's group by controller; "" is version 2."""
    found: dict[str, Path] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            for root in (ROOT / controllers.removeprefix("name="), ROOT / "unified", ROOT):
                directory = root / path.lstrip("/")
                if (directory / "cgroup.procs").exists():
                    found[controller] = directory
                    break
    return found


def _version_2(own: Path) -> Base:
    """Raises OSError where no subtree with both controllers can be had."""
    if not {"memory", "pids"} <= set((own / "cgroup.controllers").read_text().split()):
        raise OSError(f"{own} has no memory and pids controllers")
    leaf = own / f"{_PREFIX}{os.getpid()}-launcher"
    try:
        # With processes in it a group may not give its controllers to children, so this
        # works where nobody else is in ours, as in a scope that systemd made for us.
        leaf.mkdir()
        (leaf / "cgroup.procs").write_text("0")
        try:
            (own / "cgroup.subtree_control").write_text("+memory +pids")
        except OSError:
            (own / "cgroup.procs").write_text("0")
            leaf.rmdir()
            raise
        return _below(own, leaf)
    except OSError as error:
        # Otherwise above, where root may make groups whatever lies beside them.
        first = error
    for above in own.parents:
        with suppress(OSError):
            return _below(above, None)
    raise first


def _below(above: Path, leaf: Path | None) -> Base:
    """A base in `above`, which gives its controllers to it."""
    wanted = {"memory", "pids"}
    if not wanted <= set((above / "cgroup.subtree_control").read_text().split()):
        (above / "cgroup.subtree_control").write_text("+memory +pids")
    _sweep(above)
    base = above / f"{_PREFIX}{os.getpid()}"
    base.mkdir()
    (base / "cgroup.subtree_control").write_text("+memory +pids")
    return Base(2, base, base, leaf)


def _version_1(memory: Path, pids: Path) -> Base:
    made: list[Path] = []
    for directory in (memory, pids):
        _sweep(directory)
        base = directory / f"{_PREFIX}{os.getpid()}"
        try:
            base.mkdir()
        except OSError:
            for other in made:
                other.rmdir()
            raise
        made.append(base)
    return Base(1, *made)


def _sweep(directory: Path) -> None:
    """Remove what launchers left that did not live to do it."""
    for left in directory.glob(f"{_PREFIX}*"):
        owner = left.name.removeprefix(_PREFIX).split("-")[0]
        if owner.isdecimal() and not Path("/proc", owner).exists():
            _remove_tree(left, retries=1)


def _remove_tree(directory: Path, retries: int = _RETRIES) -> None:
    with suppress(OSError):
        for group in directory.iterdir():
            if group.is_dir():
                remove(group, retries)
    remove(directory, retries)


def remove(group: Path, retries: int = _RETRIES) -> None:
    """Remove a group; the kernel may take a moment to see that its last process ended."""
    for _ in range(retries):
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(_PAUSE)
        else:
            return
