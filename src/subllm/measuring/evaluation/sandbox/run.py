"""One run under way: fed, read, timed and ended from outside.

What the kernel does not bound for a whole run (CPU time of several processes, and memory
where there is no control group) is looked at through /proc.
"""

from __future__ import annotations

import math
import os
import select
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from subllm.measuring.evaluation.sandbox import processes
from subllm.measuring.evaluation.sandbox.cgroups import Group
from subllm.measuring.evaluation.sandbox.limits import Limits, Outcome, Status

_CHUNK = 1 << 16
# Share of the CPU time after which the kernel's limit may have been the end: it counts by ticks
# on a busy machine, and may come before what is counted afterwards has got there.
_USED_UP = 0.5
_OWN_THREADS = 4  # that may be among those counted: bubblewrap, process 1
_LOOK_OFTEN, _LOOK_SELDOM = 0.01, 0.1  # seconds between looks, without and with a group
_PATIENCE = 2.0  # seconds for bubblewrap to see that its process 1 was killed


class Run:
    """Follows `process`; `outcome` returns when it and all that it started have ended.

    `collect` are descriptors to read collected files from. Descriptors are closed.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        limits: Limits,
        *,
        stdin: bytes,
        collect: Mapping[str, int],
        group: Group | None,
        kill: Callable[[], None] | None = None,
    ) -> None:
        """`kill` ends what runs without a namespace."""
        self._process = process
        self._limits = limits
        self._group = group
        self._kills_before = 0 if group is None else group.kills()
        self._kill = kill or self._kill_namespace
        self._began = time.monotonic()
        self._pending = memoryview(stdin)
        self._status: Status | None = None
        self._stopped = threading.Event()
        self._output: dict[str, bytearray] = {}
        self._truncated: set[str] = set()
        self._room = {"stdout": limits.output_bytes, "stderr": limits.output_bytes}
        self._selector = selectors.DefaultSelector()
        self._end = os.pidfd_open(process.pid)
        self._selector.register(self._end, selectors.EVENT_READ, "end")
        streams = {f"+{name}": descriptor for name, descriptor in collect.items()}
        for name in ("stdout", "stderr"):
            if (stream := getattr(process, name)) is not None:
                streams[name] = os.dup(stream.fileno())
                stream.close()
        for name, descriptor in streams.items():
            self._room.setdefault(name, limits.file_bytes + 1)
            self._output[name] = bytearray()
            os.set_blocking(descriptor, False)
            self._selector.register(descriptor, selectors.EVENT_READ, name)
        if process.stdin is not None:
            feed = os.dup(process.stdin.fileno())
            process.stdin.close()
            os.set_blocking(feed, False)
            self._selector.register(feed, selectors.EVENT_WRITE, "stdin")

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """End the run, from another thread; its `outcome` says "killed"."""
        self._stopped.set()
        with suppress(OSError):
            signal.pidfd_send_signal(self._end, 0)
            self._kill()

    def outcome(self) -> Outcome:
        cpu = self._follow()
        seconds = time.monotonic() - self._began
        code, used = self._reap()
        cpu = max(cpu, used)
        for key in list(self._selector.get_map().values()):
            if key.data not in ("stdin", "end"):
                while self._read(key):
                    pass
        for key in list(self._selector.get_map().values()):
            os.close(key.fd)
        self._selector.close()
        status = self._judge(code, cpu)
        files = {
            n[1:]: bytes(b[1:]) for n, b in self._output.items() if n[0] == "+" and b
        }  # without the "+" that comes first
        return Outcome(
            status=status,
            exit_code=code if status == "exited" else None,
            stdout=self._output.get("stdout", b"").decode(errors="replace"),
            stderr=self._output.get("stderr", b"").decode(errors="replace"),
            seconds=seconds,
            cpu_seconds=cpu,
            stdout_truncated="stdout" in self._truncated,
            stderr_truncated="stderr" in self._truncated,
            files=files,
        )

    def _judge(self, code: int, cpu: float) -> Status:
        if self._out_of_memory():
            return "memory"
        if self._status is not None:
            return self._status
        used_up = cpu >= self._limits.cpu_seconds * _USED_UP
        if code in (-signal.SIGXCPU, -signal.SIGKILL) and used_up:
            return "timeout"
        return "output" if self._truncated & {"stdout", "stderr"} else "exited"

    def _follow(self) -> float:
        """Serve the streams until the program ends or must end; CPU time seen by then."""
        deadline = self._began + self._limits.wall_seconds
        look = _LOOK_SELDOM if self._group is not None else _LOOK_OFTEN
        next_look = self._began + look
        cpu = 0.0
        while True:
            now = time.monotonic()
            if self._status is None and now >= deadline:
                self._status = "timeout"
            elif self._stopped.is_set():
                self._status = "killed"
            if self._status is not None:
                return max(cpu, processes.usage(self._process.pid).cpu_seconds)
            if now >= next_look:
                cpu = self._look()
                next_look = now + look
            for key, _ in self._selector.select(max(0.0, min(deadline, next_look) - now)):
                if key.data == "end":
                    return cpu
                if key.data == "stdin":
                    self._feed(key.fd)
                else:
                    self._read(key)

    def _feed(self, descriptor: int) -> None:
        try:
            self._pending = self._pending[os.write(descriptor, self._pending[:_CHUNK]) :]
        except BlockingIOError:
            return
        except OSError:
            self._pending = self._pending[:0]  # the program does not want it
        if not self._pending:
            self._selector.unregister(descriptor)
            os.close(descriptor)

    def _read(self, key: selectors.SelectorKey) -> bool:
        """Take what is there; whether there may be more."""
        kept = self._output[key.data]
        try:
            data = os.read(key.fd, _CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._selector.unregister(key.fd)
            os.close(key.fd)
            return False
        room = self._room[key.data] - len(kept)
        kept += data[:room]
        if len(data) > room:
            self._truncated.add(key.data)
            self._status = self._status or "output"
            return False
        return True

    def _look(self) -> float:
        """End a run that uses too much of what no limit of the kernel's bounds here."""
        used = processes.usage(self._process.pid)
        if self._out_of_memory():
            self._status = "memory"
        elif used.cpu_seconds > self._limits.cpu_seconds:
            self._status = "timeout"
        elif self._group is None and used.memory_bytes > self._limits.memory_bytes:
            self._status = "memory"
        elif used.threads > self._limits.processes + _OWN_THREADS:
            self._status = "killed"
        return used.cpu_seconds

    def _out_of_memory(self) -> bool:
        return self._group is not None and self._group.kills() > self._kills_before

    def _kill_namespace(self) -> None:
        """Kill process 1, with which all of its namespace ends before bubblewrap does."""
        inside = list(processes.below(self._process.pid))[1:2]
        for process in inside or [self._process.pid]:
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)

    def _reap(self) -> tuple[int, float]:
        """End the run; its exit status as in `subprocess`, and its CPU time."""
        if self._status is not None:
            self._kill()
        waited = time.monotonic() + _PATIENCE
        end = select.poll()
        end.register(self._end, select.POLLIN)
        while not end.poll(50):
            if time.monotonic() > waited:
                self._process.kill()
                waited = math.inf
        _, status, used = os.wait4(self._process.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self._process.returncode = code
        if self._kill != self._kill_namespace:
            self._kill()  # what stayed behind
        # As shells and bubblewrap say that a signal ended a program.
        signalled = 128 < code <= 128 + signal.SIGRTMAX
        return (128 - code if signalled else code), used.ru_utime + used.ru_stime


def kill_session(process: int, home: Path) -> None:
    """Kill a process, its session, and whatever has `home` in its environment.

    For runs without a namespace; those that hide from it stay.
    """
    with suppress(OSError):
        os.killpg(process, signal.SIGKILL)
    mark = f"HOME={home}\0".encode()
    found = True
    while found:
        found = False
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if mark in path.read_bytes():
                    os.kill(int(path.parent.name), signal.SIGKILL)
                    found = True
