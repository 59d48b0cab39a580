"""Running programs that nobody has read: the harness's side.

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

import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self

from subllm.errors import SandboxError
from subllm.measuring.evaluation.sandbox import means, wire
from subllm.measuring.evaluation.sandbox.client import LauncherClient, scope_possible
from subllm.measuring.evaluation.sandbox.limits import Limits, Outcome

_GRACE_SECONDS = 60.0  # beyond a run's own limit: then its keeper has failed
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
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()  # to keepers
        self._idle: list[socket.socket] = []  # those of them that wait for a request
        self._closed = False
        self._directory = Path(tempfile.mkdtemp(prefix="subllm-sandbox-"))
        root = self._directory / "root"
        try:
            root.mkdir()
            for directory in (self._directory, root):
                directory.chmod(0o711)  # runs may be other users
            self._client = self._first_that_works(means.modes(unsafe, rootless), root)
        except BaseException:
            shutil.rmtree(self._directory, ignore_errors=True)
            raise

    def _first_that_works(self, modes: list[str], root: Path) -> LauncherClient:
        reasons = []
        for mode in modes:
            try:
                client = self._start(mode, root)
            except SandboxError as error:
                reasons.append(f"{mode}: {error}")
            else:
                return client
        raise SandboxError(
            f"programs cannot be contained on this machine ({'; '.join(reasons)}); "
            f"{means.advice()}, evaluate elsewhere, or run them unprotected with --unsafe"
        )

    def _start(self, mode: str, root: Path) -> LauncherClient:
        """A launcher that has shown that it can run something; raises SandboxError."""
        client = LauncherClient(mode, root)
        if not client.groups and scope_possible():
            with suppress(SandboxError):
                scoped = LauncherClient(mode, root, scoped=True)
                client.close()
                client = scoped
        try:
            answer, blobs = self._ask(client, ["true"], {}, b"", _TRIAL, (), ())
            if answer["exit_code"] != 0:
                said = blobs[1].decode(errors="replace").strip()
                raise SandboxError(said or f"a trial run ended as {answer['status']}")
        except BaseException:
            self._hang_up()
            client.close()
            raise
        self.enforced = client.enforced
        self.missing = client.missing
        if not answer["proc"]:
            self.missing += ("no /proc for programs: this container forbids to mount it",)
        return client

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
        answer, blobs = self._ask(self._client, command, files, stdin, limits, read_only, collect)
        return Outcome(
            status=answer["status"],
            exit_code=answer["exit_code"],
            stdout=blobs[0].decode(errors="replace"),
            stderr=blobs[1].decode(errors="replace"),
            seconds=answer["seconds"],
            cpu_seconds=answer["cpu_seconds"],
            stdout_truncated=answer["stdout_truncated"],
            stderr_truncated=answer["stderr_truncated"],
            files=dict(zip(answer["collected"], blobs[2:], strict=True)),
        )

    def scratch(self, name: str) -> Path:
        """A directory of this machine that lasts as long as the sandbox, to show to runs."""
        directory = self._directory / name
        directory.mkdir(exist_ok=True)
        directory.chmod(0o755)
        return directory

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
            connection = self._connect(self._client, [theirs.fileno(), theirs.fileno()])
        try:
            wire.send(connection, *_request(command, files, b"", limits, read_only, ()))
        except OSError as error:
            self._disconnect(connection)
            ours.close()
            raise SandboxError(f"the sandbox failed: {error}") from error
        return Session(self, connection, ours)

    def _ask(
        self,
        client: LauncherClient,
        command: Sequence[str],
        files: Mapping[str, bytes | str],
        stdin: bytes,
        limits: Limits,
        read_only: Sequence[Path],
        collect: Sequence[str],
    ) -> tuple[dict[str, Any], list[bytes]]:
        header, blobs = _request(command, files, stdin, limits, read_only, collect)
        connection = self._connect(client)
        try:
            connection.settimeout(limits.wall_seconds + _GRACE_SECONDS)
            wire.send(connection, header, blobs)
            answer, results = wire.receive(connection)
        except BaseException as error:
            self._disconnect(connection)  # which ends the run
            if not isinstance(error, wire.Ended | OSError):
                raise
            what = "was closed" if self._closed else f"failed: {error!r}"
            raise SandboxError(f"the sandbox {what} while a program ran in it") from error
        with self._lock:
            self._idle.append(connection)
        if "error" in answer:
            raise SandboxError(f"the sandbox failed: {answer['error']}")
        return answer, results

    def _connect(self, client: LauncherClient, descriptors: Sequence[int] = ()) -> socket.socket:
        """A connection to a keeper that has no other run."""
        with self._lock:
            if self._idle and not descriptors:
                return self._idle.pop()
        connection = client.connect(descriptors)
        with self._lock:
            self._open.add(connection)
            closed = self._closed
        if closed:
            self._disconnect(connection)
            raise SandboxError("the sandbox is closed; make a new one")
        return connection

    def _disconnect(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)
        connection.close()

    def _hang_up(self) -> None:
        """Close the connections to all keepers, who then end their runs and themselves."""
        with self._lock:
            connections, self._open, self._idle = self._open, set(), []
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # wakes who waits for an answer

    def close(self) -> None:
        """End all runs and the processes of the sandbox; returns when they have ended."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._hang_up()
        self._client.close()
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

    def __init__(self, sandbox: Sandbox, keeper: socket.socket, connection: socket.socket) -> None:
        self._sandbox = sandbox
        self._keeper = keeper
        self.connection = connection

    def close(self) -> None:
        """End the program; returns when it and all that it started have ended."""
        self.connection.close()
        with suppress(wire.Ended, OSError):
            self._keeper.shutdown(socket.SHUT_WR)
            self._keeper.settimeout(_GRACE_SECONDS)
            wire.receive(self._keeper)
        self._sandbox._disconnect(self._keeper)


def _request(
    command: Sequence[str],
    files: Mapping[str, bytes | str],
    stdin: bytes,
    limits: Limits,
    read_only: Sequence[Path],
    collect: Sequence[str],
) -> tuple[dict[str, Any], list[bytes]]:
    for name in (*files, *collect):
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise SandboxError(f"{name!r} is not a name below the working directory; rename it")
    contents = [text.encode() if isinstance(text, str) else text for text in files.values()]
    header = {
        "command": list(command),
        "files": list(files),
        "read_only": [str(path.absolute()) for path in read_only],
        "collect": list(collect),
        "limits": asdict(limits),
    }
    return header, [stdin, *contents]
