"""Process 1 of a run: builds the view, gives up all rights, starts the program, waits.

When this process ends the kernel kills whatever else the run left behind. The program
runs as the same user but cannot signal, trace or read it: it is process 1 of its
namespace and not dumpable. It reports to the keeper through a socket that the program
does not inherit.
"""

# Not pathlib, which would add half to what a run costs.
# ruff: noqa: PTH103, PTH120

from __future__ import annotations

import math
import os
import resource
import signal
import socket
import stat
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from subllm.measuring.evaluation.sandbox import seccomp, syscalls, view, wire
from subllm.measuring.evaluation.sandbox.limits import Limits

ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "HOME": view.WORK,
    "TMPDIR": view.WORK,
}


@dataclass(frozen=True)
class Job:
    """What to run, and with which of the machine's means.

    `root` is the empty directory to build the view in; without namespaces it is the
    working directory itself. `user` is the number of the user and group to become, or None
    to stay; both need namespaces. `own_count` puts the program into a user namespace of its
    own, so that the limit on processes counts its own only; `limit_processes` says whether
    that limit would count the right ones.
    """

    command: list[str]
    files: Mapping[str, bytes]
    shown: Sequence[view.Shown]
    collect: Sequence[str]
    limits: Limits
    root: str
    namespaces: bool
    user: int | None
    own_count: bool
    limit_processes: bool
    filter_calls: bool


def main(job: Job, report: socket.socket, streams: tuple[int, int, int]) -> NoReturn:
    """Carry the job out and exit; `streams` become the program's standard ones."""
    try:
        wire.send(report, {"ready": True, "proc": _prepare(job)})
        # The keeper starts the clock now.
        started = time.monotonic()
        program = os.fork()
        if program == 0:
            _become_program(job, streams)
        for stream in streams:
            os.close(stream)
        status = _wait_for(program)
        seconds = time.monotonic() - started
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = _collect(job)
        header = {
            "exit_code": os.waitstatus_to_exitcode(status),
            "seconds": seconds,
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "collected": list(found),
        }
        wire.send(report, header, list(found.values()))
    except BaseException as error:
        with suppress(OSError):
            wire.send(report, {"error": f"{type(error).__name__}: {error}"})
    finally:
        os._exit(0)


def _prepare(job: Job) -> bool:
    """Set the scene; whether the program will see a /proc."""
    proc = True
    _if_memory_runs_out(b"500")  # this one rather than the keeper
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    if job.namespaces:
        user = job.user
        owner = (os.getuid(), os.getgid()) if user is None else (user, user)
        proc = view.enter(job.root, job.shown, job.limits.disk_bytes, owner)
        syscalls.drop_bounding_set()
        if user is not None:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        syscalls.drop_capabilities()
    else:
        os.chdir(job.root)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    os.umask(0o022)
    for name, content in job.files.items():
        if "/" in name:
            os.makedirs(os.path.dirname(name), exist_ok=True)
        _write(name, content, os.O_CREAT)
    return proc


def _write(path: str, content: bytes, flags: int = 0) -> None:
    """Write a file; a new one may be a program."""
    descriptor = os.open(path, os.O_WRONLY | flags, 0o755)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        while content:
            content = content[file.write(content) :]


def _become_program(job: Job, streams: tuple[int, int, int]) -> NoReturn:
    try:
        os.setsid()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.closerange(3, 1 << 16)
        # Or /proc/self would belong to root. The program's own image starts anew.
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
        _if_memory_runs_out(b"1000")  # this one rather than process 1
        if job.own_count:
            own_user_namespace()
        _limit(job.limits, job.limit_processes)
        if job.filter_calls:
            seccomp.install()
        else:
            syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        environment = dict(ENVIRONMENT)
        if not job.namespaces:
            environment |= {"HOME": job.root, "TMPDIR": job.root}
        program = job.command[0]
        if "/" in program:
            os.execve(program, job.command, environment)  # noqa: S606
        os.execvpe(program, job.command, environment)  # noqa: S606
    except BaseException as error:
        with suppress(OSError):
            os.write(2, f"cannot start {job.command[0]}: {error}\n".encode())
    finally:
        os._exit(127)


def _if_memory_runs_out(score: bytes) -> None:
    """How ready the kernel is to kill this process first."""
    with suppress(OSError):
        _write("/proc/self/oom_score_adj", score)


def own_user_namespace() -> None:
    user, group = os.getuid(), os.getgid()
    syscalls.unshare(syscalls.CLONE_NEWUSER)
    write_maps(user, group)
    syscalls.drop_bounding_set()


def write_maps(user: int, group: int) -> None:
    """Map this user and group to themselves in the user namespace just made."""
    _write("/proc/self/setgroups", b"deny")
    _write("/proc/self/uid_map", f"{user} {user} 1".encode())
    _write("/proc/self/gid_map", f"{group} {group} 1".encode())


def _limit(limits: Limits, processes: bool) -> None:
    # The first signal of the CPU limit can be caught, the second cannot.
    cpu = max(1, math.ceil(limits.cpu_seconds))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
    wanted = [
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_NOFILE, limits.open_files),
        # Address space is no measure of memory (a JVM reserves tens of GB): private
        # writable memory is. It makes an allocation fail instead of the kernel kill.
        (resource.RLIMIT_DATA, limits.memory_bytes),
        (resource.RLIMIT_CORE, 0),
    ]
    if processes:
        wanted.append((resource.RLIMIT_NPROC, limits.processes))
    for name, value in wanted:
        _, hard = resource.getrlimit(name)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (value, value))


def _wait_for(program: int) -> int:
    """Reap everything that ends until `program` does; its wait status."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == program:
            return status


def _collect(job: Job) -> dict[str, bytes]:
    """The wanted files, as far as they are regular files and no links.

    What still runs may change them meanwhile; it cannot lead us out of the directory,
    whose names are looked up one by one and never through a link.
    """
    found: dict[str, bytes] = {}
    for name in job.collect:
        with suppress(OSError):
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as file:
                if stat.S_ISREG(os.fstat(descriptor).st_mode):
                    found[name] = file.read(job.limits.file_bytes)
    return found
