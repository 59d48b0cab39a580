"""What a program sees of the file system: the system's programs, read-only, and its work.

    /usr /bin /lib ...   the system's, read-only, and a few files of /etc that they need
    PATH                 each directory that the run asked for, read-only, at its own place
    /dev                 null zero full random urandom
    /proc                of the run's own processes
    /sandbox                a file system of its own with a size limit: the working directory
    /tmp                 is /sandbox, unless a PATH lies there

The rest does not exist. Everything is put together in a mount namespace of the run, below
an empty directory of the host, which then becomes the root.
"""

# Not pathlib, which would add half to what a run costs.
# ruff: noqa: PTH102, PTH103, PTH112, PTH114, PTH115, PTH120, PTH211, S108

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from subllm.measuring.evaluation.sandbox.syscalls import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    make_root,
    mount,
    restrict_mount,
)

WORK = "/sandbox"
_SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"),
    *("/nix/store", "/gnu/store"),
    *("/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d"),
)
_SYSTEM_PATTERNS = ("java*", "*-openjdk*")  # in /etc: a JVM's settings, linked to from its home
_DEVICES = ("null", "zero", "full", "random", "urandom")
_LINKS = {"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"}
_INODES = 20_000


@dataclass(frozen=True)
class Shown:
    """A file or directory of this machine to show; a symbolic link as what it says."""

    path: str
    link: str | None
    directory: bool

    @classmethod
    def at(cls, path: str) -> Shown:
        link = os.readlink(path) if os.path.islink(path) else None
        return cls(path, link, os.path.isdir(path))


def system() -> tuple[Shown, ...]:
    """What every run sees of this machine; the launcher looks once."""
    names = [*_SYSTEM, *(str(path) for g in _SYSTEM_PATTERNS for path in Path("/etc").glob(g))]
    return tuple(Shown.at(name) for name in names if os.path.lexists(name))


def enter(root: str, shown: Sequence[Shown], disk_bytes: int, owner: tuple[int, int]) -> bool:
    """Build the view below the empty directory `root` and move into it, to /sandbox.

    `owner` is the user and group that /sandbox belongs to. Returns whether /proc could be
    mounted, which a container may forbid. Raises OSError where anything else fails.
    """
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    for each in shown:
        _show(root, each)
    _devices(root)
    proc = _proc(root)
    os.mkdir(root + WORK, 0o755)
    uid, gid = owner
    options = f"size={disk_bytes},nr_inodes={_INODES},mode=700,uid={uid},gid={gid}"
    mount("tmpfs", root + WORK, "tmpfs", MS_NOSUID | MS_NODEV, options)
    if not os.path.lexists(root + "/tmp"):
        os.symlink(WORK, root + "/tmp")
    # Of all that is below only the tree that holds the mount points.
    mount(None, root, None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)
    make_root(root)
    os.chdir(WORK)
    return proc


def _show(root: str, shown: Shown) -> None:
    """Make a path of the host visible, read-only, at the same place."""
    target = root + shown.path
    if os.path.lexists(target):
        return  # it lies in something shown already
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if shown.link is not None:
        os.symlink(shown.link, target)
        return
    if shown.directory:
        os.mkdir(target)
    else:
        _touch(target)
    mount(shown.path, target, None, MS_BIND | MS_REC)
    restrict_mount(target, MS_RDONLY | MS_NOSUID | MS_NODEV)


def _touch(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))


def _devices(root: str) -> None:
    os.mkdir(root + "/dev", 0o755)
    for name in _DEVICES:
        _touch(f"{root}/dev/{name}")
        mount(f"/dev/{name}", f"{root}/dev/{name}", None, MS_BIND)
    for name, end in _LINKS.items():
        os.symlink("/proc/self/fd" + end, f"{root}/dev/{name}")


def _proc(root: str) -> bool:
    os.mkdir(root + "/proc", 0o555)
    for options in ("hidepid=2", ""):  # its own processes only, where the kernel can
        with suppress(OSError):
            mount("proc", root + "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, options)
            return True
    return False
