"""Locks between processes, and the pins that keep garbage collection off live work.

Locks are the operating system's (through `filelock`): a killed process loses them.
Beside a held lock lies `<lock>.holder`, which only serves messages.

A `Session` is a live writer. It holds a lock file of its own and writes down, before
relying on an object, the object's path in the store. Garbage collection reads the pins
of every session whose lock is still held, so it needs no clock and no grace period.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from subllm.errors import LockedError
from subllm.models.store.files import disk_errors

_POLL_SECONDS = 0.05
_MESSAGE_AFTER_SECONDS = 0.3
_held: dict[Path, int] = {}  # lock file -> thread of this process that holds it


@contextmanager
def hold(
    path: Path,
    title: str,
    *,
    wait: bool = True,
    timeout: float | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """Hold the lock file `path`, alone among all processes and threads.

    `title` names the lock for people. `on_wait` hears once, with a line for a person,
    when another holder must be waited for. Raises LockedError when the lock is taken
    and `wait` is False, when `timeout` seconds passed, or when this very thread holds
    it already and would wait for itself.
    """
    if _held.get(path) == threading.get_ident():
        raise LockedError(f"this process holds the lock {title!r} already; finish that work first")
    lock = filelock.FileLock(path, thread_local=False)
    with disk_errors(path):
        _acquire(lock, path, title, wait, timeout, on_wait)
    _held[path] = threading.get_ident()
    holder = path.with_suffix(".holder")
    try:
        # Only for messages: a full disk must not keep anyone from cleaning up.
        with suppress(OSError):
            holder.write_text(json.dumps({"pid": os.getpid()}))
        yield
    finally:
        with suppress(OSError):
            holder.unlink()
        del _held[path]
        lock.release()


def _acquire(
    lock: filelock.BaseFileLock,
    path: Path,
    title: str,
    wait: bool,
    timeout: float | None,
    on_wait: Callable[[str], None] | None,
) -> None:
    started = time.monotonic()
    told = False
    while True:
        with suppress(filelock.Timeout):
            lock.acquire(timeout=0)
            return
        waited = time.monotonic() - started
        if not wait or (timeout is not None and waited >= timeout):
            raise LockedError(
                f"{_holder(path)} holds the lock {title!r}; wait for it to end, then try again"
            )
        if on_wait is not None and not told and waited >= _MESSAGE_AFTER_SECONDS:
            on_wait(f"waiting for {_holder(path)} ({title})")
            told = True
        time.sleep(_POLL_SECONDS)


def _holder(path: Path) -> str:
    try:
        return f"process {int(json.loads(path.with_suffix('.holder').read_text())['pid'])}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


class Session:
    """One live writer and the objects that it relies on.

    Must be made under the store's mutation lock: until its lock file is locked,
    `live_pins` would take it for a dead writer's.
    """

    def __init__(self, directory: Path) -> None:
        name = f"writer-{uuid.uuid4().hex}"
        self._lock_path = directory / f"{name}.lock"
        self._pins_path = directory / f"{name}.pins"
        self._lock = filelock.FileLock(self._lock_path, thread_local=False)
        with disk_errors(self._lock_path):
            try:
                self._lock.acquire(timeout=0)
                self._pins_path.touch(exist_ok=False)
            except OSError:
                self.close()
                raise

    def pin(self, path: str) -> None:
        """Keep `path` (relative to the store's root) while this writer lives."""
        with disk_errors(self._pins_path), self._pins_path.open("a") as file:
            file.write(path + "\n")

    def close(self) -> None:
        with suppress(OSError):
            self._pins_path.unlink(missing_ok=True)
            self._lock_path.unlink(missing_ok=True)
        self._lock.release()


def live_pins(directory: Path) -> tuple[set[str], list[Path]]:
    """The pinned paths of live writers, and the files that dead writers left.

    Must run under the store's mutation lock.
    """
    pins: set[str] = set()
    dead: list[Path] = []
    for lock_path in sorted(directory.glob("writer-*.lock")):
        pins_path = lock_path.with_suffix(".pins")
        if _is_held(lock_path):
            with suppress(FileNotFoundError):  # it ended just now
                pins.update(pins_path.read_text().splitlines())
        else:
            dead += [lock_path, pins_path]
    return pins, dead


def _is_held(lock_path: Path) -> bool:
    lock = filelock.FileLock(lock_path, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return True
    except OSError:
        return True  # not ours to lock (another user's, or a read-only disk): spare it
    lock.release()
    return False
