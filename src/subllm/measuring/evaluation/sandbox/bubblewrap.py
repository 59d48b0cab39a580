"""The command that contains a program: bubblewrap, and what it starts inside.

    /usr /bin /lib ...   the system's, read-only, and a few files of /etc that they need
    PATH                 each directory that the run asked for, read-only, at its own place
    /dev /proc           a few devices; the run's own processes
    /sandbox             a file system of its own with a size limit: the working directory
    /tmp                 is /sandbox, unless a PATH lies there

The rest does not exist. Process 1 is a shell that starts the program, waits for it and
hands out the files to collect, so that bubblewrap learns the CPU time of all. Under root it
is another user than the program; else the program may read and change it, and gains nothing:
it has the same limits, filter and (no) rights.
"""

from __future__ import annotations

import math
import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from subllm.errors import SandboxError
from subllm.measuring.evaluation.sandbox.limits import Limits

WORK = "/sandbox"
BEGUN = ""  # what is collected under no name says that process 1 began
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
_SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"),
    *("/nix/store", "/gnu/store"),
    *("/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d"),
)
_SYSTEM_PATTERNS = ("java*", "*-openjdk*")  # in /etc: a JVM's settings, linked to from its home
# Root's runs become users that nobody has here, so that the kernel counts their processes alone.
_USERS_FROM, _USERS = 20_000, 40_000
NOBODY = 65534
_JOIN = 'echo 0 > "$0/cgroup.procs" && exec "$@"'  # a shell that moves itself into a group
_INSTALL = "apt install bubblewrap"


@dataclass(frozen=True)
class Way:
    """How programs are contained: `root` by right, each run a user of its own; else through
    a user namespace, as anybody may, where `rootless` first gives up root's rights."""

    root: bool
    rootless: bool


def ways(rootless: bool) -> list[Way]:
    """Ways to try on this machine, the best first; raises SandboxError without bubblewrap."""
    for program, install in (
        ("bwrap", _INSTALL),
        ("setpriv", "apt install util-linux"),
        ("prlimit", "apt install util-linux"),
    ):
        if shutil.which(program) is None:
            raise SandboxError(
                f"programs are contained with {program}, which is not on this machine; {install}, "
                "evaluate elsewhere, or run them unprotected with --unsafe"
            )
    if os.geteuid() != 0:
        return [Way(root=False, rootless=False)]
    unprivileged = Way(root=False, rootless=True)
    return [unprivileged] if rootless else [Way(root=True, rootless=False), unprivileged]


def contained(
    way: Way,
    script: str,
    limits: Limits,
    *,
    read_only: Sequence[str],
    files: Mapping[str, int],
    calls: int | None,
) -> list[str]:
    """The command that runs `script` in the sandbox.

    `files` are names and descriptors of what to put into the working directory, `calls` is
    the descriptor of the filter.
    """
    command = _unprivileged(NOBODY) if way.rootless else []
    command += [_tool("bwrap"), "--die-with-parent", "--as-pid-1", "--cap-drop", "ALL"]
    command += [f"--unshare-{kind}" for kind in ("pid", "net", "ipc", "uts", "cgroup-try")]
    if way.root:
        for right in ("SETUID", "SETGID", "SETPCAP"):  # for process 1 to become the user
            command += ["--cap-add", f"CAP_{right}"]
    else:
        command += ["--unshare-user"]
    command += ["--hostname", "sandbox", *_view(read_only)]
    mode = "0777" if way.root else "0700"
    command += ["--perms", mode, "--size", str(limits.disk_bytes), "--tmpfs", WORK]
    for name, descriptor in files.items():
        command += ["--perms", "0777", "--file", str(descriptor), f"{WORK}/{name}"]
    if calls is not None:
        command += ["--seccomp", str(calls)]
    command += ["--remount-ro", "/", "--chdir", WORK, "--"]
    return command + limited(script, limits, count=True)


def limited(script: str, limits: Limits, *, count: bool) -> list[str]:
    """The command that runs `script` with the kernel's limits for single processes.

    `count` limits processes too, which counts all that the user has.
    """
    # The first signal of the CPU limit can be caught, the second cannot.
    cpu = max(1, math.ceil(limits.cpu_seconds))
    # Address space is no measure of memory (a JVM reserves tens of GB): private writable
    # memory is. It makes an allocation fail instead of the kernel kill.
    options = [f"--cpu={cpu}:{cpu + 1}", f"--data={limits.memory_bytes}", "--core=0"]
    options += [f"--fsize={limits.file_bytes}", f"--nofile={limits.open_files}"]
    if count:
        options.append(f"--nproc={limits.processes}")
    return [_tool("prlimit"), *options, "--", "/bin/sh", "-c", script]


def script(
    way: Way | None, slot: int, command: Sequence[str], limits: Limits, collect: Mapping[str, int]
) -> str:
    """What process 1 does; `collect` are names and descriptors to write to.

    A "+" comes before a collected file, so that an empty one is one. Links are left out
    for order's sake: they lead to nothing that the program may not read.
    """
    user = _unprivileged(_user(slot)) if way is not None and way.root else []
    # The shell's own words on how a program ended are not the program's.
    program = shlex.join([*user, *command])
    run = f"exec 3>&2 2>/dev/null; unset PWD OLDPWD; (exec 2>&3 3>&-; exec {program})\n"
    lines = [f"printf + > /proc/self/fd/{collect[BEGUN]}", run + "code=$?"]
    for name, descriptor in collect.items():
        if name == BEGUN:
            continue
        path = shlex.quote(f"./{name}")
        take = shlex.join([*user, "head", "-c", str(limits.file_bytes)])
        lines.append(
            f"if [ -f {path} ] && [ ! -h {path} ]; then "
            f"{{ printf +; {take} {path}; }} > /proc/self/fd/{descriptor}; fi"
        )
    return "\n".join([*lines, "exit $code"])


def joined(directory: Path, command: list[str]) -> list[str]:
    """`command`, begun inside a control group."""
    return ["/bin/sh", "-c", _JOIN, str(directory), *command]


def _unprivileged(user: int) -> list[str]:
    who = [f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    return [_tool("setpriv"), *who, "--bounding-set=-all", "--inh-caps=-all", "--"]


def _user(slot: int) -> int:
    """Runs at the same time are different users; other harnesses have theirs elsewhere."""
    return _USERS_FROM + (os.getpid() * 64 + slot) % _USERS


def _view(read_only: Sequence[str]) -> list[str]:
    names = [*_SYSTEM, *(str(path) for g in _SYSTEM_PATTERNS for path in Path("/etc").glob(g))]
    options: list[str] = []
    seen: list[str] = []
    for path in (*filter(os.path.lexists, names), *read_only):
        if any(path == above or path.startswith(above + "/") for above in seen):
            continue
        for above in reversed(Path(path).parents[:-1]):
            if not any(above.is_relative_to(other) for other in seen):
                # Else it would be as closed as the original, to another user.
                options += ["--perms", "0755", "--dir", str(above)]
        if Path(path).is_symlink():
            options += ["--symlink", str(Path(path).readlink()), path]
        else:
            options += ["--ro-bind", path, path]
        seen.append(path)
    options += ["--dev", "/dev", "--remount-ro", "/dev", "--proc", "/proc"]
    if not any(path.startswith("/tmp/") for path in seen):  # noqa: S108
        options += ["--symlink", WORK, "/tmp"]  # noqa: S108
    return options


def _tool(name: str) -> str:
    return shutil.which(name) or name
