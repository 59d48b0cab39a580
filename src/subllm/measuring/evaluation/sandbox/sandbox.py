"""Running programs that nobody has read.

    with Sandbox() as sandbox:
        outcome = sandbox.run(["python3", "x.py"], files={"x.py": text}, limits=limits)

A run sees the system's programs, read-only, and an empty directory of its own; it has no
network, no rights, no view of other files and processes, nothing of the caller's
environment, and limits on everything. When it ends, whatever it started ends too.

What is not covered: holes in the kernel; time and caches as a way to learn what else runs
here; and programs that turn against what they are given in the same run, for example
against tests that run in the same process.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

from subllm.errors import SandboxError
from subllm.measuring.evaluation.sandbox import bubblewrap, calls, cgroups
from subllm.measuring.evaluation.sandbox.bubblewrap import Way
from subllm.measuring.evaluation.sandbox.limits import Limits, Outcome
from subllm.measuring.evaluation.sandbox.run import Run, kill_session

_PREFIX = "subllm-sandbox-"
_TRIAL = Limits(
    wall_seconds=20.0,
    cpu_seconds=10.0,
    memory_bytes=1 << 28,
    processes=16,
    file_bytes=1 << 20,
    disk_bytes=1 << 20,
    open_files=64,
    output_bytes=1 << 16,
)
# Of all runs of this process: each has its own user, whichever sandbox it is in.
_slots: set[int] = set()
_slots_lock = threading.Lock()
Given = tuple[int, int]  # standard input and output of a session


@dataclass(frozen=True)
class _Program:
    """What is run; see `Sandbox.run`."""

    command: Sequence[str]
    files: Mapping[str, bytes | str]
    stdin: bytes
    read_only: Sequence[Path]
    collect: Sequence[str] = ()


class Sandbox:
    """Runs programs, several at a time if called from several threads.

    `enforced` and `missing` say in lines for a person what this machine lets us enforce
    and how, and what it does not.
    """

    enforced: tuple[str, ...]
    missing: tuple[str, ...]

    def __init__(self, *, unsafe: bool = False, rootless: bool = False) -> None:
        """Raises SandboxError where programs cannot be contained, unless `unsafe`.

        `unsafe` still contains as much as the machine allows. `rootless` does without
        root's rights where there are any, as for every other user.
        """
        if sys.platform != "linux":
            raise SandboxError("programs can be contained on Linux only; evaluate there")
        self._changed = threading.Condition()
        self._running: dict[int, Run] = {}  # by slot
        self._started = 0  # runs that have not ended
        self._closed = False
        # Bubblewrap ends with the thread that started it: one that lasts.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="sandbox")
        _sweep()
        self._directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        self._directory.chmod(0o711)  # runs may be other users
        self._calls = calls.program()
        self._group: cgroups.Group | None = None
        try:
            self._way = self._first_that_works(unsafe, rootless)
        except BaseException:
            self.close()
            raise
        self.enforced, self.missing = self._words()

    def _first_that_works(self, unsafe: bool, rootless: bool) -> Way | None:
        reasons = []
        ways: list[Way] = []
        try:
            ways = bubblewrap.ways(rootless)
        except SandboxError:
            if not unsafe:
                raise
        for way in ways:
            self._group = None if way.rootless else cgroups.find()
            self._way = way
            try:
                outcome = self.run(["true"], files={}, limits=_TRIAL)
            except SandboxError as error:
                reasons.append(str(error))
            else:
                if outcome.exit_code == 0:
                    return way
                reasons.append(outcome.stderr.strip() or f"a trial run ended as {outcome.status}")
            if self._group is not None:
                self._group.remove()
                self._group = None
        if unsafe:
            return None
        raise SandboxError(
            f"programs cannot be contained on this machine ({'; '.join(reasons)}); allow user "
            "namespaces (sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0, or a "
            "container with --privileged), evaluate elsewhere, or run them unprotected with "
            "--unsafe"
        )

    def _words(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """For people: what is enforced here and how, and what is not."""
        limits = "CPU time, file size, open files, wall clock, output: limits"
        if self._way is None:
            return (limits,), (
                "no bubblewrap: programs see and change what you may see and change, use the "
                "network, and may leave processes behind",
                "disk: only the size of each file is limited",
                "memory and processes are counted every 10 ms only",
            )
        enforced = [
            "no network, no view of other files and processes: bubblewrap",
            "nothing outlives its run: a process namespace for each",
            "disk: a private file system of limited size",
            "processes: a resource limit",
            limits,
        ]
        missing = []
        if self._way.root:
            enforced.append("no rights: a user of its own for each run, without capabilities")
        if self._group is not None:
            version = self._group.version
            enforced.append(f"memory: control groups version {version}")
        else:
            missing.append(
                "no control group: memory is looked at every 10 ms only, without that of files"
            )
        if self._calls is not None:
            enforced.append("no sockets, tracing, mounts or kernel interfaces: seccomp")
        else:
            missing.append("no libseccomp: system calls are not filtered; apt install libseccomp2")
        return tuple(enforced), tuple(missing)

    def run(
        self,
        command: Sequence[str],
        *,
        files: Mapping[str, bytes | str],
        stdin: bytes = b"",
        limits: Limits,
        read_only: Sequence[Path] = (),
        collect: Sequence[str] = (),
    ) -> Outcome:
        """Run `command` in a new directory that holds `files` and wait for its end.

        `read_only` are files and directories of this machine to show at their own place;
        what lies in the system's directories is there anyway. `collect` names files of the
        directory to bring back in the outcome. Nothing that the program does raises;
        SandboxError means that the sandbox failed.
        """
        slot, run = self._start(_Program(command, files, stdin, read_only, collect), limits, None)
        return self._finish(slot, run)

    def session(
        self,
        command: Sequence[str],
        *,
        files: Mapping[str, bytes | str],
        limits: Limits,
        read_only: Sequence[Path] = (),
    ) -> Session:
        """Start `command` to talk to it while it runs, as `run` otherwise."""
        ours, theirs = socket.socketpair()
        with theirs:
            given = (theirs.fileno(), theirs.fileno())
            try:
                slot, run = self._start(_Program(command, files, b"", read_only), limits, given)
            except BaseException:
                ours.close()
                raise
        thread = threading.Thread(target=self._end, args=(slot, run), daemon=True)
        thread.start()
        return Session(run, thread, ours)

    def scratch(self, name: str) -> Path:
        """A directory of this machine that lasts as long as the sandbox, to show to runs."""
        directory = self._directory / name
        directory.mkdir(exist_ok=True)
        directory.chmod(0o755)
        return directory

    def _start(self, program: _Program, limits: Limits, given: Given | None) -> tuple[int, Run]:
        for name in (*program.files, *program.collect):
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or not path.parts:
                raise SandboxError(f"{name!r} is not a name below the working directory; rename it")
        with self._changed:
            if self._closed:
                raise SandboxError("the sandbox is closed; make a new one")
            with _slots_lock:
                slot = next(n for n in range(len(_slots) + 1) if n not in _slots)
                _slots.add(slot)
            self._started += 1
        try:
            run = self._spawn(slot, program, limits, given)
        except BaseException as error:
            self._leave(slot)
            if isinstance(error, OSError):
                raise SandboxError(f"the sandbox failed: {error}") from error
            raise
        with self._changed:
            self._running[slot] = run
            closed = self._closed
        if closed:
            run.stop()
        return slot, run

    def _spawn(self, slot: int, program: _Program, limits: Limits, given: Given | None) -> Run:
        contents = {n: t.encode() if isinstance(t, str) else t for n, t in program.files.items()}
        way, cwd, environment = self._way, Path("/"), dict(bubblewrap.ENVIRONMENT)
        home = self._directory / f"run-{slot}" if way is None else Path(bubblewrap.WORK)
        group = None if self._group is None else self._group.child(f"run-{slot}")
        with ExitStack() as ours, ExitStack() as failed:
            reading, writing = {}, {}
            for name in (bubblewrap.BEGUN, *program.collect):
                reading[name], writing[name] = os.pipe()
                if way is not None and way.rootless:  # the shell inside opens it by its name
                    os.fchown(writing[name], bubblewrap.NOBODY, bubblewrap.NOBODY)
                ours.callback(os.close, writing[name])
                failed.callback(os.close, reading[name])
            passed = list(writing.values())

            def lend(content: bytes) -> int:
                """A descriptor to read `content` from."""
                descriptor = os.memfd_create("sandbox")
                ours.callback(os.close, descriptor)
                passed.append(descriptor)
                with open(descriptor, "wb", closefd=False) as file:
                    file.write(content)
                os.lseek(descriptor, 0, os.SEEK_SET)
                return descriptor

            script = bubblewrap.script(way, slot, program.command, limits, writing)
            if way is None:
                _write(home, contents)
                cwd = home
                argv = bubblewrap.limited(script, limits, count=False)
            else:
                argv = bubblewrap.contained(
                    *(way, script, limits),
                    read_only=[str(path.absolute()) for path in program.read_only],
                    files={name: lend(content) for name, content in contents.items()},
                    calls=None if self._calls is None else lend(self._calls),
                )
            if group is not None:
                group.limit(limits.memory_bytes)
                argv = bubblewrap.joined(group.directory, argv)
            environment |= {"HOME": str(home), "TMPDIR": str(home)}

            def begin() -> Run:
                process = subprocess.Popen(
                    argv,
                    stdin=subprocess.PIPE if given is None else given[0],
                    stdout=subprocess.PIPE if given is None else given[1],
                    stderr=subprocess.PIPE if given is None else subprocess.DEVNULL,
                    pass_fds=passed,
                    env=environment,
                    cwd=cwd,
                    start_new_session=True,  # Ctrl-C is for the harness
                )
                kill = None if way is not None else lambda: kill_session(process.pid, home)
                return Run(
                    process, limits, stdin=program.stdin, collect=reading, group=group, kill=kill
                )

            run = self._starter.submit(begin).result()
            failed.pop_all()
        return run

    def _end(self, slot: int, run: Run) -> Outcome:
        try:
            return run.outcome()
        finally:
            self._leave(slot)

    def _finish(self, slot: int, run: Run) -> Outcome:
        outcome = self._end(slot, run)
        if run.stopped and self._closed:
            raise SandboxError("the sandbox was closed while a program ran in it")
        files = dict(outcome.files)
        if files.pop(bubblewrap.BEGUN, None) is None and outcome.status == "exited":
            said = outcome.stderr.strip() or f"exit status {outcome.exit_code}"
            raise SandboxError(f"the sandbox failed: {said}")
        return replace(outcome, files=files)

    def _leave(self, slot: int) -> None:
        """The run of `slot` has ended."""
        if self._way is None:
            shutil.rmtree(self._directory / f"run-{slot}", ignore_errors=True)
        with self._changed:
            self._running.pop(slot, None)
            with _slots_lock:
                _slots.discard(slot)
            self._started -= 1
            self._changed.notify_all()

    def close(self) -> None:
        """End all runs; returns when they have ended."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            for run in self._running.values():
                run.stop()
            self._changed.wait_for(lambda: not self._started)
        self._starter.shutdown()
        if self._group is not None:
            self._group.remove()
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Session:
    """A program that runs and is talked to through `connection`, its input and output.

    What comes from it is as little to be trusted as any output.
    """

    def __init__(self, run: Run, thread: threading.Thread, connection: socket.socket) -> None:
        self._run = run
        self._thread = thread
        self.connection = connection

    def close(self) -> None:
        """End the program; returns when it and all that it started have ended."""
        self.connection.close()
        self._run.stop()
        self._thread.join()


def _write(home: Path, contents: Mapping[str, bytes]) -> None:
    home.mkdir()
    for name, content in contents.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o755)


def _sweep() -> None:
    """Remove the directories of harnesses that were killed."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        owner = left.name.removeprefix(_PREFIX).split("-")[0]
        if owner.isdecimal() and not Path("/proc", owner).exists():
            shutil.rmtree(left, ignore_errors=True)
