"""How programs can be contained on this machine: which ways there may be, what a launcher
takes on for one, and what it says of it."""

from __future__ import annotations

import os
import shutil
import socket
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from subllm.measuring.evaluation.sandbox import bubblewrap, cgroups, inside, seccomp, syscalls, view

# Settings that forbid user namespaces: name, value that does, value that does not.
_SWITCHES = (
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("user.max_user_namespaces", "0", "10000"),
)
_HIGHEST_USER = 0x7FFF0000
_USERS_EACH = 64
_RESERVED_USERS = 1000  # at the top of a container's range; 65534 is "nobody"
_SHARED = syscalls.CLONE_NEWNET | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS


def modes(unsafe: bool, rootless: bool) -> list[str]:
    """Ways to contain programs, the best first; see launcher.py."""
    if os.geteuid() == 0:
        # Not bubblewrap: its programs would be root, if without rights, to the kernel.
        found = ["user"] if rootless else ["root", "user"]
    else:
        found = ["user"] + ["bubblewrap"] * (shutil.which("bwrap") is not None)
    return [*found, "none"] if unsafe else found


def advice() -> str:
    """What would let this machine contain programs."""
    for name, forbids, allows in _SWITCHES:
        with suppress(OSError):
            if Path("/proc/sys", name.replace(".", "/")).read_text().strip() == forbids:
                return f"allow user namespaces with 'sudo sysctl {name}={allows}'"
    if Path("/.dockerenv").exists() or Path("/run/.containerenv").exists():
        return "start this container with rights to make namespaces (--privileged)"
    return "allow user namespaces here"


@dataclass(frozen=True)
class Means:
    """With what this machine lets runs be contained; see `inside.Job`."""

    mode: str  # root, user, bubblewrap or none, see launcher.py
    directory: str  # of the host: empty, or to make working directories in
    users: int | None  # number of the highest user that runs may become
    own_count: bool
    limit_processes: bool
    filter_calls: bool
    groups: cgroups.Base | None
    shown: tuple[view.Shown, ...]  # to every run


def take_on(mode: str, directory: str) -> tuple[Means, list[str], list[str]]:
    """Get what `mode` needs; raises OSError where the machine refuses."""
    users = None
    if mode == "user" and os.geteuid() == 0:
        groups, groups_words = None, "they are root's"
    else:
        groups, groups_words = cgroups.find()
    try:
        if mode == "root":
            syscalls.unshare(_SHARED)
            users = _highest_user()
        elif mode == "user":
            _enter_user_namespace()
        if mode in ("root", "user"):
            socket.sethostname("sandbox")
    except OSError:
        if groups is not None:
            groups.remove()
        raise
    # The kernel's own limit counts all processes of a user, so it is only for users that a
    # run has for itself, or since Linux 5.14 for users in a namespace that it has for itself.
    own_count = groups is None and mode in ("user", "bubblewrap") and _kernel() >= (5, 14)
    if mode == "user":
        own_count = own_count and _works(inside.own_user_namespace)
    means = Means(
        mode=mode,
        directory=directory,
        users=users,
        own_count=own_count and mode == "user",
        limit_processes=groups is None and (own_count or users is not None),
        filter_calls=seccomp.supported() and _works(seccomp.install),
        groups=groups,
        shown=view.system() + (bubblewrap.shown() if mode == "bubblewrap" else ()),
    )
    return means, *_words(means, groups_words)


def _enter_user_namespace() -> None:
    if os.geteuid() == 0:
        # To the kernel root's programs stay root's: it lets them write to /proc/sys and does
        # not limit their number. So we become somebody else.
        user = _highest_user()
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)  # or the maps belong to root
    user, group = os.geteuid(), os.getegid()
    syscalls.unshare(syscalls.CLONE_NEWUSER | _SHARED)
    inside.write_maps(user, group)


def _highest_user() -> int:
    """A user number that nobody has here; runs at the same time take the ones below.

    Other launchers have theirs elsewhere: the kernel counts processes by user.
    """
    ranges = [line.split() for line in Path("/proc/self/uid_map").read_text().splitlines()]
    first, _, count = max(ranges, key=lambda fields: int(fields[2]))
    last = int(first) + int(count) - 1
    top = min(last - min(_RESERVED_USERS, int(count) // 2), _HIGHEST_USER)
    places = max(1, (top - int(first)) // 2 // _USERS_EACH)
    return top - os.getpid() % places * _USERS_EACH


def _kernel() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(takewhile(str.isdecimal, minor)))


def _works(attempt: object) -> bool:
    """Whether `attempt` succeeds, tried in a child."""
    assert callable(attempt)
    pid = os.fork()
    if pid == 0:
        try:
            attempt()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


def _words(means: Means, groups: str) -> tuple[list[str], list[str]]:
    """For people: what is enforced here and how, and what is not."""
    enforced, missing = [], []
    if means.mode != "none":
        how = {"root": "namespaces", "user": "namespaces of an unprivileged user"}.get(
            means.mode, "bubblewrap"
        )
        enforced += [
            f"no network, no view of other files and processes: {how}",
            "nothing outlives its run: a process namespace for each",
            "disk: a private file system of limited size",
        ]
        if means.users is not None:
            enforced.append("no rights: a user of its own for each run, without capabilities")
    else:
        missing += [
            "no namespaces: programs see and change what you may see and change",
            "disk: only the size of each file is limited",
        ]
        if not means.filter_calls:
            missing.append("programs can use the network")
    if means.groups is not None:
        enforced.append(f"memory and processes: {groups}")
    else:
        missing.append(
            f"no control group ({groups}): memory is looked at every 10 ms only, without that of "
            "files"
        )
        if means.limit_processes:
            enforced.append("processes: a resource limit")
        else:
            missing.append("processes are counted every 10 ms only")
    enforced.append("CPU time, file size, open files, wall clock, output: limits")
    if means.filter_calls:
        enforced.append("no sockets, tracing, mounts or kernel interfaces: seccomp")
    else:
        missing.append("no seccomp: system calls are not filtered")
    return enforced, missing
