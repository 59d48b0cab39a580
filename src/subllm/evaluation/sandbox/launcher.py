"""A small process that starts the runs: forking it is cheap, forking the harness is not.

    python -I -S -c '... launcher.main()' MODE DIRECTORY      with a socket as descriptor 0

It takes on what its children share (a network namespace without a network, perhaps a user
namespace), says hello with what it can enforce, and then forks a keeper for each
connection that the harness passes it. It ends, and with it every run, when the harness
says that it is done or closes the socket. MODE is

    root    namespaces by right; every run becomes a user of its own
    user    namespaces through a user namespace, as anybody may
    bubblewrap  namespaces through bwrap, see bubblewrap.py
    none    no namespaces: for `unsafe` only
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

from subllm.evaluation.sandbox import bubblewrap, cgroups, inside, seccomp, syscalls, view, wire
from subllm.evaluation.sandbox.keeper import Means, keep

_HIGHEST_USER = 0x7FFF0000
_USERS_EACH = 64
_RESERVED_USERS = 1000  # at the top of a container's range; 65534 is "nobody"
_SHARED = syscalls.CLONE_NEWNET | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS


RUN, DONE = b"r", b"d"  # what the harness says


def main() -> None:
    mode, directory = sys.argv[1:3]
    control = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the harness decides
    try:
        means, enforced, missing = _take_on(mode, directory)
    except OSError as error:
        wire.send(control, {"error": str(error)})
        return
    groups = means.groups
    hello = {
        "enforced": enforced,
        "missing": missing,
        "groups": groups is not None,
        "leaf": str(groups.leaf) if groups is not None and groups.leaf is not None else None,
    }
    orderly = False
    with suppress(OSError):
        wire.send(control, hello)
        orderly = _serve(control, means)
    with suppress(ChildProcessError):
        while True:
            os.wait()  # keepers end their runs: their connections are closed too
    if groups is not None:
        groups.remove()
    if not orderly:
        shutil.rmtree(Path(directory).parent, ignore_errors=True)


def _serve(control: socket.socket, means: Means) -> bool:
    """Start keepers until the harness is done (True) or has gone without a word (False)."""
    slots: dict[int, int] = {}  # keeper -> slot
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 3)
        if not message or message == DONE:
            return message == DONE
        _reap(slots)
        slot = next(n for n in range(len(slots) + 1) if n not in slots.values())
        pid = os.fork()
        if pid == 0:
            control.close()
            try:
                keep(socket.socket(fileno=descriptors[0]), descriptors[1:], means, slot)
            finally:
                os._exit(0)
        slots[pid] = slot
        for descriptor in descriptors:
            os.close(descriptor)


def _reap(slots: dict[int, int]) -> None:
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG)[0]) != 0:
            slots.pop(ended, None)


def _take_on(mode: str, directory: str) -> tuple[Means, list[str], list[str]]:
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
        missing.append(f"no control group ({groups}): memory is looked at every 10 ms only")
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
