"""Compilers that stay warm: one JVM compiles program after program inside the sandbox.

A cold javac takes a second of CPU time a program, a warm one a few hundredths. Programs
are only compiled there, not run. A compiler that hangs, or that ran out of something, is
ended and the next program gets a new one.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from dataclasses import dataclass

from subllm.measuring.evaluation.sandbox import Sandbox, Session
from subllm.measuring.evaluation.toolchains.verdict import MIB, Tool, inside, limits

_LENGTH = struct.Struct(">i")
_MEMORY = 1536 * MIB
_HEAP_MIB = 512
_PROCESSES = 64
_LIFE_SECONDS = 1e6
_START_SECONDS = 60.0
_MOST_BYTES = 64 * MIB  # of classes of one program
_MOST_CLASSES = 5_000


class CompilerLostError(Exception):
    """The compiler hangs, has ended or answers nonsense; it has been replaced."""

    def __init__(self, timed_out: bool) -> None:
        super().__init__("timed out" if timed_out else "ended")
        self.timed_out = timed_out


@dataclass(frozen=True)
class Compiled:
    """Classes by name, or `error` in one line."""

    classes: dict[str, bytes]
    error: str
    seconds: float


class WarmCompilers:
    """As many compilers as are used at one time; thread-safe."""

    def __init__(self, sandbox: Sandbox, java: Tool) -> None:
        self._sandbox = sandbox
        self._java = java
        self._source = inside("Compiler.java")
        self._lock = threading.Lock()
        self._idle: list[Session] = []

    def compile(self, name: str, text: str, *, seconds: float) -> Compiled:
        """Compile `text`, the file `name`; raises CompilerLostError after `seconds`."""
        with self._lock:
            session = self._idle.pop() if self._idle else None
        session = session or self._start()
        try:
            compiled = _exchange(session.connection, name, text, seconds)
        except BaseException as error:
            session.close()
            if isinstance(error, OSError | ValueError):
                raise CompilerLostError(isinstance(error, TimeoutError)) from error
            raise
        if compiled.error.startswith("the compiler failed"):
            session.close()  # out of memory or stack: who knows what else is wrong with it
        else:
            with self._lock:
                self._idle.append(session)
        return compiled

    def _start(self) -> Session:
        """A compiler that has compiled itself and one more class; raises CompilerLostError."""
        options = [f"-Xmx{_HEAP_MIB}m", "-Xshare:auto", "-XX:+UseSerialGC", "-XX:-UsePerfData"]
        session = self._sandbox.session(
            [str(self._java.path), *options, "Compiler.java"],
            files={"Compiler.java": self._source},
            limits=limits(_LIFE_SECONDS, memory=_MEMORY, processes=_PROCESSES),
            read_only=self._java.read_only,
        )
        try:
            _exchange(session.connection, "A.java", "class A {}", _START_SECONDS)
        except (OSError, ValueError) as error:
            session.close()
            raise CompilerLostError(isinstance(error, TimeoutError)) from error
        return session


def _exchange(connection: socket.socket, name: str, text: str, seconds: float) -> Compiled:
    """Send one program and read what comes back in time, which may be anything.

    Raises TimeoutError, OSError when the connection ends, ValueError on nonsense.
    """
    started = time.monotonic()
    deadline = started + seconds
    connection.settimeout(seconds)
    request = b""
    for part in (name.encode(), text.encode()):
        request += _LENGTH.pack(len(part)) + part
    connection.sendall(request)
    answer = _Answer(connection, deadline)
    error = answer.block().decode(errors="replace")
    count = answer.integer(_MOST_CLASSES)
    classes = {}
    for _ in range(count):
        class_name = answer.block().decode()
        if not all(part.isidentifier() for part in class_name.replace("$", "_").split(".")):
            raise ValueError(f"{class_name!r} names no class")
        classes[class_name] = answer.block()
    return Compiled(classes, error, time.monotonic() - started)


class _Answer:
    """Reads an answer of bounded size in bounded time."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self._left = _MOST_BYTES

    def integer(self, most: int) -> int:
        value: int = _LENGTH.unpack(self._exactly(_LENGTH.size))[0]
        if not 0 <= value <= most:
            raise ValueError(f"{value} is too much")
        return value

    def block(self) -> bytes:
        size = self.integer(self._left)
        self._left -= size
        return self._exactly(size)

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._connection.settimeout(max(0.001, self._deadline - time.monotonic()))
            part = self._connection.recv(min(size - len(data), MIB))
            if not part:
                raise ConnectionError("the compiler ended")
            data += part
        return bytes(data)
