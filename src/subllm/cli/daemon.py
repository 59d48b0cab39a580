"""Running servers: a record per port under `<home>/run`, believed only while its process lives."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from subllm import __version__
from subllm.cli import background
from subllm.cli.server_client import ServerClient
from subllm.errors import ServerError
from subllm.files import write_whole

STOP_SECONDS = 10.0
START_SECONDS = 60.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  where a client connects instead


@dataclass(frozen=True)
class Daemon:
    """A server process. `created` is the process's start (`background.began`): a pid alone
    may have been reused. `started` is seconds since the epoch."""

    pid: int
    created: float
    host: str
    port: int
    started: float
    version: str

    @property
    def url(self) -> str:
        return url_of(self.host, self.port)

    def alive(self) -> bool:
        """Whether the very process that wrote the record still runs."""
        return background.alive(self.pid, self.created)


def url_of(host: str, port: int) -> str:
    """What a client connects to that is on this machine, without a slash at the end."""
    if host.startswith("unix:"):
        return host
    host = _EVERYWHERE.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def record_path(home: Path, port: int) -> Path:
    return home / "run" / f"server-{port}.json"


def log_path(home: Path, port: int) -> Path:
    """Where a detached server writes what it says."""
    return home / "run" / f"server-{port}.log"


@contextmanager
def recorded(home: Path, host: str, port: int) -> Iterator[Daemon]:
    """Make this process known as the server of `port` while the body runs."""
    path = record_path(home, port)
    path.parent.mkdir(parents=True, exist_ok=True)
    daemon = Daemon(os.getpid(), background.began(), host, port, time.time(), __version__)
    write_whole(path, json.dumps(asdict(daemon)).encode(), mode=0o600)
    try:
        yield daemon
    finally:
        path.unlink(missing_ok=True)


def running(home: Path) -> list[Daemon]:
    """Live servers of this store, by port. Records of dead ones are ignored, not removed:
    their port may be taken over at this moment."""
    found = []
    for path in (home / "run").glob("server-*.json"):
        try:
            daemon = Daemon(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            continue
        if daemon.alive():
            found.append(daemon)
    return sorted(found, key=lambda daemon: daemon.port)


def find(home: Path, port: int) -> Daemon | None:
    """The server of `port`; where that has none, the only one that runs."""
    daemons = running(home)
    for daemon in daemons:
        if daemon.port == port:
            return daemon
    return daemons[0] if len(daemons) == 1 else None


def stop(daemon: Daemon) -> None:
    """End the server politely, then by force. Raises ServerError when it is not ours to end."""
    import psutil

    try:
        process = psutil.Process(daemon.pid)
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(STOP_SECONDS)
    except psutil.NoSuchProcess:
        return
    except psutil.AccessDenied as error:
        raise ServerError(
            f"process {daemon.pid} belongs to another user; stop it as that user"
        ) from error


def launch(home: Path, host: str, port: int, options: list[str], api_key: str | None) -> Daemon:
    """Start `subllm serve` in the background and wait until it answers.

    Raises ServerError with the server's own last line when it ends or stays silent.
    """
    log = log_path(home, port)
    command = ["serve", "--host", host, "--port", str(port), *options]
    process = background.spawn(command, log, home)
    deadline = time.monotonic() + START_SECONDS
    try:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise ServerError(f"the server did not start: {background.last_line(log)}")
            for daemon in running(home):
                if daemon.pid == process.pid and ServerClient(daemon.url, api_key).healthy():
                    return daemon
            time.sleep(0.05)
        raise ServerError(f"the server does not answer after {START_SECONDS:.0f} s; see {log}")
    except BaseException:
        # Also on Ctrl-C: nobody would know of a server that was never announced.
        if process.poll() is None:
            process.terminate()
        raise
