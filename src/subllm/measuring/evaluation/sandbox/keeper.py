"""The keeper of a run: a process outside that watches it and answers the harness.

It reads the request, sets the limits of its group, starts process 1, feeds standard input,
collects bounded output, keeps the time, and when the run has ended or must end removes
everything of it. Then it waits for the next request. It ends the run when the harness goes
away.
"""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from subllm.measuring.evaluation.sandbox import bubblewrap, inside, processes, syscalls, view, wire
from subllm.measuring.evaluation.sandbox.cgroups import Group
from subllm.measuring.evaluation.sandbox.limits import Limits
from subllm.measuring.evaluation.sandbox.means import Means

_CHUNK = 1 << 16
_PREPARING_SECONDS = 30.0
_EARLY = (
    0.1  # seconds of CPU: the kernel's limit goes by another clock, and may come a little before
)
_OWN_THREADS = 4  # that may be among those counted: process 1, bubblewrap
_LOOK_OFTEN, _LOOK_SELDOM = 0.01, 0.1  # seconds between looks, without and with a group


def keep(connection: socket.socket, descriptors: list[int], means: Means, slot: int) -> None:
    """Serve requests on `connection`, one after the other, until the harness closes it.

    `descriptors` are standard input and output of a session, which the harness reads and
    writes itself; for plain runs there are none. `slot` tells keepers apart.
    """
    try:
        group = None if means.groups is None else means.groups.group(f"keeper-{slot}")
        if group is not None:
            group.join()
        while True:
            header, blobs = wire.receive(connection)
            answer, results = _serve(connection, header, blobs, descriptors, means, slot, group)
            wire.send(connection, answer, results)
            del header, blobs, answer, results  # or the next run would start as large
    except (wire.Ended, OSError):
        return


def _serve(
    connection: socket.socket,
    header: dict[str, Any],
    blobs: list[bytes],
    descriptors: list[int],
    means: Means,
    slot: int,
    group: Group | None,
) -> tuple[dict[str, Any], list[bytes]]:
    """Carry out one request; the answer and the blobs that go with it."""
    limits = Limits(**header["limits"])
    root = {
        "bubblewrap": view.WORK,
        "none": f"{means.directory}/{os.getpid()}",
    }.get(means.mode, means.directory)
    try:
        if group is not None:
            group.limit(limits)
        if means.mode == "none":
            Path(root).mkdir()
        job = inside.Job(
            command=header["command"],
            files=dict(zip(header["files"], blobs[1:], strict=True)),
            shown=(*means.shown, *map(view.Shown.at, header["read_only"])),
            collect=header["collect"],
            limits=limits,
            root=root,
            namespaces=means.mode in ("root", "user"),
            user=None if means.users is None else means.users - slot,
            own_count=means.own_count,
            limit_processes=means.limit_processes,
            filter_calls=means.filter_calls,
        )
        wrapped = means.mode == "bubblewrap"
        return _Run(connection, job, blobs[0], descriptors, group, wrapped).result()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}, []
    finally:
        if means.mode == "none":
            shutil.rmtree(root, ignore_errors=True)


class _Run:
    """One run under way."""

    def __init__(
        self,
        connection: socket.socket,
        job: inside.Job,
        stdin: bytes,
        descriptors: list[int],
        group: Group | None,
        wrapped: bool,
    ) -> None:
        """`wrapped` puts it into bubblewrap."""
        self.connection = connection
        self.job = job
        self.limits = job.limits
        self.group = group
        self.kills_before = 0 if group is None else group.kills()
        self.pending = memoryview(stdin)
        self.output = {1: bytearray(), 2: bytearray()}
        self.truncated = {1: False, 2: False}
        self.report: dict[str, Any] | None = None
        self.files: list[bytes] = []
        self.status = ""
        self.proc = False  # whether the program sees a /proc
        self.selector = selectors.DefaultSelector()
        self._start(descriptors, wrapped)

    def _start(self, descriptors: list[int], wrapped: bool) -> None:
        ours, theirs = socket.socketpair()
        if descriptors:
            kept: list[int] = []
            given = (descriptors[0], descriptors[1], os.open(os.devnull, os.O_WRONLY))
        else:
            (stdin, feed), (out, stdout), (err, stderr) = os.pipe(), os.pipe(), os.pipe()
            kept, given = [feed, out, err], (stdin, stdout, stderr)
        if self.job.namespaces:
            self.process = syscalls.fork_into(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID)
        else:
            syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
            self.process = os.fork()
        if self.process == 0:
            ours.close()
            self.connection.close()
            for descriptor in kept:  # or the program would hold the other ends of its pipes
                os.close(descriptor)
            (bubblewrap.start if wrapped else inside.main)(self.job, theirs, given)
        # Orphans come to process 1 of a namespace, or else to us, who had other runs before.
        self.watched = self.process if self.job.namespaces else os.getpid()
        self.cpu_before = processes.usage(self.watched).cpu_seconds
        theirs.close()
        for descriptor in given:
            os.close(descriptor)
        self.inside = ours
        if wrapped:
            bubblewrap.send(self.job, ours)
        self.selector.register(ours, selectors.EVENT_READ, "report")
        self.selector.register(self.connection, selectors.EVENT_READ, "harness")
        for descriptor, data in zip(kept, ("stdin", 1, 2), strict=False):
            os.set_blocking(descriptor, False)
            event = selectors.EVENT_WRITE if data == "stdin" else selectors.EVENT_READ
            self.selector.register(descriptor, event, data)

    def result(self) -> tuple[dict[str, Any], list[bytes]]:
        self.began = time.monotonic()
        self.deadline = self.began + _PREPARING_SECONDS
        self.look = _LOOK_SELDOM if self.group is not None else _LOOK_OFTEN
        next_look = self.began + self.look
        while not self.status:
            now = time.monotonic()
            if now >= self.deadline:
                self.status = "timeout"
                break
            if now >= next_look:
                self._look()
                next_look = now + self.look
            for key, _ in self.selector.select(max(0.0, min(self.deadline, next_look) - now)):
                self._handle(key)
        seconds = time.monotonic() - self.began
        used = processes.usage(self.watched) if self.report is None else None
        self._end()
        return self._answer(seconds, used)

    def _handle(self, key: selectors.SelectorKey) -> None:
        if key.data == "report":
            self._read_report()
        elif key.data == "harness":
            self.status = "killed"  # it never writes: it has gone
        elif key.data == "stdin":
            self._feed(key.fd)
        else:
            self._read(key.fd, key.data)

    def _read_report(self) -> None:
        try:
            header, blobs = wire.receive(self.inside)
        except (wire.Ended, OSError):
            self.status = "killed"  # process 1 was, unless the group says it was memory
            return
        if "ready" in header:
            self.proc = header["proc"]
            self.began = time.monotonic()
            self.deadline = self.began + self.limits.wall_seconds
            return
        self.report, self.files, self.status = header, blobs, "exited"

    def _feed(self, descriptor: int) -> None:
        try:
            self.pending = self.pending[os.write(descriptor, self.pending[:_CHUNK]) :]
        except BlockingIOError:
            return
        except OSError:
            self.pending = self.pending[:0]  # the program does not want it
        if not self.pending:
            self.selector.unregister(descriptor)
            os.close(descriptor)

    def _read(self, descriptor: int, stream: int) -> bool:
        """Take what is there; whether there may be more."""
        kept = self.output[stream]
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self.selector.unregister(descriptor)
            os.close(descriptor)
            return False
        room = self.limits.output_bytes - len(kept)
        kept += data[:room]
        if len(data) > room:
            self.truncated[stream] = True
            self.status = self.status or "output"
        return not self.truncated[stream]

    def _look(self) -> None:
        """End a run that uses too much of what no limit of the kernel's bounds here."""
        if self._out_of_memory():
            self.status = "memory"
            return
        used = processes.usage(self.watched)
        if used.cpu_seconds - self.cpu_before > self.limits.cpu_seconds:
            self.status = "timeout"
        elif self.group is None and used.memory_bytes > self.limits.memory_bytes:
            self.status = "memory"
        elif self.group is None and used.threads > self.limits.processes + _OWN_THREADS:
            self.status = "killed"

    def _end(self) -> None:
        """Kill what is left of the run and take what it wrote before."""
        if not self.job.namespaces:
            processes.kill_below(os.getpid())
        with suppress(OSError):
            os.kill(self.process, signal.SIGKILL)
        with suppress(ChildProcessError):
            while True:
                os.wait()
        for key in list(self.selector.get_map().values()):
            if key.data in (1, 2):
                while self._read(key.fd, key.data):
                    pass
            if key.data in (1, 2, "stdin") and key.fd in self.selector.get_map():
                os.close(key.fd)
        self.selector.close()
        self.inside.close()
        if self._out_of_memory():
            self.status = "memory"

    def _out_of_memory(self) -> bool:
        return self.group is not None and self.group.kills() > self.kills_before

    def _answer(
        self, seconds: float, used: processes.Usage | None
    ) -> tuple[dict[str, Any], list[bytes]]:
        report = self.report or {}
        if "error" in report:
            return report, []
        cpu = used.cpu_seconds - self.cpu_before if used is not None else report["cpu_seconds"]
        code = report.get("exit_code")
        used_up = cpu >= self.limits.cpu_seconds - _EARLY
        by_limit = code in (-signal.SIGXCPU, -signal.SIGKILL) and used_up
        if self.status == "exited" and by_limit:
            self.status = "timeout"
        elif self.status == "exited" and any(self.truncated.values()):
            self.status = "output"
        answer = {
            "status": self.status,
            "exit_code": code if self.status == "exited" else None,
            "seconds": report.get("seconds", seconds),
            "cpu_seconds": cpu,
            "stdout_truncated": self.truncated[1],
            "stderr_truncated": self.truncated[2],
            "proc": self.proc,
            "collected": report.get("collected", []),
        }
        return answer, [bytes(self.output[1]), bytes(self.output[2]), *self.files]
