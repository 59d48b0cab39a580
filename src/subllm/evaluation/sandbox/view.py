"""What a program sees of the file system: the system's programs, read-only, and its work.

    /usr /bin /lib ...   the system's, read-only, and a few files of /etc that they need
    PATH                 each directory that the run asked for, read-only, at its own place
    /dev                 null zero full random urandom
    /proc                of the run's own processes
    /work                a file system of its own with a size limit: the working directory
    /tmp                 is /work, unless a PATH lies there

The rest does not exist. Everything is put together in a mount namespace of the run, below
an empty directory of the host, which then becomes the root.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from subllm.evaluation.sandbox.syscalls import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    make_root,
    mount,
    restrict_mount,
)

WORK = "/work"
_SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"),
    *("/nix/store", "/gnu/store"),
    *("/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d"),
)
_SYSTEM_PATTERNS = ("java*", "*-openjdk*")  # in /etc: a JVM's settings, linked to from its home
_DEVICES = ("null", "zero", "full", "random", "urandom")
_LINKS = {"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"}
_INODES = 20_000


def enter(root: str, read_only: Sequence[str], disk_bytes: int, owner: tuple[int, int]) -> bool:
    """Build the view below the empty directory `root` and move into it, to /work.

    `owner` is the user and group that /work belongs to. Returns whether /proc could be
    mounted, which a container may forbid. Raises OSError where anything else fails.
    """
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    system = [*_SYSTEM, *(str(p) for g in _SYSTEM_PATTERNS for p in Path("/etc").glob(g))]
    for path in (*system, *read_only):
        _show(root, path)
    _devices(root)
    proc = _proc(root)
    Path(root + WORK).mkdir(mode=0o755)
    uid, gid = owner
    options = f"size={disk_bytes},nr_inodes={_INODES},mode=700,uid={uid},gid={gid}"
    mount("tmpfs", root + WORK, "tmpfs", MS_NOSUID | MS_NODEV, options)
    if not Path(root, "tmp").exists():
        Path(root, "tmp").symlink_to(WORK)
    # Not all that is below: only the tree that holds the mount points.
    mount(None, root, None, MS_BIND | 32 | MS_RDONLY | MS_NOSUID | MS_NODEV)
    make_root(root)
    os.chdir(WORK)
    return proc


def _show(root: str, path: str) -> None:
    """Make `path` of the host visible, read-only, at the same place."""
    target = Path(root + path)
    if not os.path.lexists(path) or os.path.lexists(target):
        return  # not on this system, or inside something shown already
    target.parent.mkdir(parents=True, exist_ok=True)
    if Path(path).is_symlink():
        target.symlink_to(Path(path).readlink())
        return
    if Path(path).is_dir():
        target.mkdir()
    else:
        target.touch()
    mount(path, str(target), None, MS_BIND | MS_REC)
    restrict_mount(str(target), MS_RDONLY | MS_NOSUID | MS_NODEV)


def _devices(root: str) -> None:
    directory = Path(root, "dev")
    directory.mkdir(mode=0o755)
    for name in _DEVICES:
        (directory / name).touch()
        mount(f"/dev/{name}", str(directory / name), None, MS_BIND)
    for name, end in _LINKS.items():
        (directory / name).symlink_to("/proc/self/fd" + end)


def _proc(root: str) -> bool:
    directory = Path(root, "proc")
    directory.mkdir(mode=0o555)
    for options in ("hidepid=2", ""):  # its own processes only, where the kernel can
        with suppress(OSError):
            mount("proc", str(directory), "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, options)
            return True
    return False
