"""The Linux calls that Python lacks: namespaces, mounts, capabilities, prctl.

Every function raises OSError, naming what it was about, where the kernel refuses.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18

_MNT_DETACH = 2
_MOUNT_SETATTR = 442  # the same number everywhere
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CLONE = {"x86_64": 56, "aarch64": 220}
_AT_RECURSIVE = 0x8000
_CAPABILITY_VERSION = 0x20080522

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_SECCOMP = 22
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

_held = ctypes.PyDLL(None, use_errno=True)
_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]


def unshare(flags: int) -> None:
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def fork_into(flags: int) -> int:
    """`os.fork`, with the child in new namespaces; its process 1 if CLONE_NEWPID is among them.

    `unshare` before a fork would do for one child only. The process must have no threads.
    """
    python = ctypes.pythonapi
    number = ctypes.c_long(_CLONE[platform.machine()])
    zero = ctypes.c_ulong(0)
    python.PyOS_BeforeFork()
    # Not through CDLL, which would let go of the interpreter around the call.
    pid = int(_held.syscall(number, ctypes.c_ulong(flags | signal.SIGCHLD), zero, zero, zero, zero))
    if pid == 0:
        python.PyOS_AfterFork_Child()
    else:
        python.PyOS_AfterFork_Parent()
        if pid < 0:
            _check(pid, "clone")
    return pid


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str = "") -> None:
    status = _libc.mount(
        None if source is None else os.fsencode(source),
        os.fsencode(target),
        None if kind is None else kind.encode(),
        ctypes.c_ulong(flags),
        options.encode() or None,
    )
    _check(status, f"mount {target}")


def restrict_mount(target: str, flags: int) -> None:
    """Add `flags` (MS_RDONLY, MS_NOSUID, MS_NODEV) to the mount `target` and all below it.

    Before Linux 5.12 only to `target` itself.
    """
    # MOUNT_ATTR_RDONLY, NOSUID and NODEV have the values of the MS_ flags.
    attributes = _MountAttributes(flags, 0, 0, 0)
    status = _libc.syscall(
        ctypes.c_long(_MOUNT_SETATTR),
        ctypes.c_int(-100),  # AT_FDCWD
        os.fsencode(target),
        ctypes.c_uint(_AT_RECURSIVE),
        ctypes.byref(attributes),
        ctypes.c_size_t(ctypes.sizeof(attributes)),
    )
    if status == 0:
        return
    # In a user namespace a remount must keep what the mount forbids already. The flags
    # that statvfs reports (read-only to noexec, atime ones) have the values of MS_ flags.
    kept = os.statvfs(target).f_flag & (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | 0x1C00)
    mount(None, target, None, MS_BIND | MS_REMOUNT | kept | flags)


def make_root(directory: str) -> None:
    """Make `directory`, a mount, the root of this mount namespace and drop the old one."""
    os.chdir(directory)
    number = _PIVOT_ROOT[platform.machine()]
    # The old root lands on top of the new one; detaching it uncovers the new one.
    _check(_libc.syscall(ctypes.c_long(number), b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", ctypes.c_int(_MNT_DETACH)), "umount the old root")
    os.chdir("/")


def prctl(option: int, value: int, pointer: object = None) -> None:
    zero = ctypes.c_ulong(0)
    status = _libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), pointer or zero, zero, zero)
    _check(status, f"prctl {option}")


def drop_bounding_set() -> None:
    """Give up every capability for good, also for programs run later; needs CAP_SETPCAP."""
    for capability in range(64):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:
            if capability == 0:
                raise
            return  # past the last one that this kernel knows


def drop_capabilities() -> None:
    """Empty this process's permitted, effective and inheritable sets."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def _check(status: int, what: str) -> None:
    if status != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
