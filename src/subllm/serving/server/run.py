"""Binds the port, then serves a store until SIGTERM or SIGINT.

    serve(loader, config, *, on_ready=None, extract=None, update=None, log_level="info")

returns when the server has stopped; running replies end with an error object, within
seconds. It never imports torch itself: the first request that needs a torch engine does.
Callers that keep a record of the server write it in `on_ready`: only then the port is
theirs.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import uvicorn

from subllm.errors import ServerError
from subllm.machine import one_heap
from subllm.serving.server.app import create_app
from subllm.serving.server.config import UNIX, ServerConfig
from subllm.serving.server.connection import Connection
from subllm.serving.server.convert import Plan
from subllm.serving.server.idle import IdleUpdates, Update
from subllm.serving.server.loading import StoreLoader
from subllm.serving.server.models import ModelSet
from subllm.serving.server.page.state import StoreFacts
from subllm.serving.server.wanted import Extract, WantedLanguages
from subllm.serving.server.worker import EngineWorker

KEEP_ALIVE_SECONDS = 65
GRACE_SECONDS = 3  # for replies to end after the signal
_BACKLOG = 128


def serve(
    loader: StoreLoader,
    config: ServerConfig,
    *,
    on_ready: Callable[[str, int], None] | None = None,
    extract: Extract | None = None,
    update: Update | None = None,
    log_level: str = "info",
) -> None:
    """Serve every model of the loader's store; call it on the main thread, where signals arrive.

    loader    what `config` bounds (memory, context, batch and queue) it bounds here too
    on_ready  called once, with host and port (the real one for port 0, 0 for a Unix
              socket), when requests are accepted
    extract   called for languages that are asked for often and that no sub-model has
    update    called when nobody asks, once a day at most
    Raises ServerError when the address cannot be bound, and what `on_ready` raises.
    """
    _configure_logging(log_level)
    one_heap()

    store = loader.store
    loader = replace(
        loader,
        context_length=config.context_length,
        memory=config.memory,
        max_batch=config.max_batch,
        queue_limit=config.max_queue,
    )
    with _listening(config.host, config.port) as listener, contextlib.ExitStack() as stack:
        models = ModelSet.of_store(
            store, loader.engine, loader.draft, loader.footprint, loader.context_of
        )
        heard: list[Callable[[Plan], None]] = []
        if extract is not None:
            heard.append(WantedLanguages(extract, _languages).saw)
        if update is not None:
            heard.append(stack.enter_context(IdleUpdates(update)).saw)

        def planned(plan: Plan) -> None:
            for hear in heard:
                hear(plan)

        app = create_app(models, config, facts=StoreFacts(store), planned=planned)
        server = Server(uvicorn_config(app), app.state.worker, on_ready)
        server.run(sockets=[listener])


def _languages() -> tuple[str, ...]:
    from subllm.making.calibration.packs import pack_names  # for servers that extract alone

    return pack_names()


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """The socket of `bind`, and no file of it afterwards."""
    with contextlib.closing(bind(host, port)) as listener:
        try:
            yield listener
        finally:
            if host.startswith(UNIX):
                Path(host.removeprefix(UNIX)).unlink(missing_ok=True)


def uvicorn_config(app: object) -> uvicorn.Config:
    """How uvicorn runs the application. Forwarded headers are not believed: a client
    could take another one's session with them."""
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        loop="asyncio",
        http=Connection,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        # Longer than clients keep a connection (5 seconds, where theirs are as short as uvicorn's
        # own): whoever closes first must not be asked at the same time.
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


class Server(uvicorn.Server):
    """uvicorn that announces itself, stops the engines first and returns after a signal."""

    def __init__(
        self,
        config: uvicorn.Config,
        worker: EngineWorker,
        on_ready: Callable[[str, int], None] | None = None,
    ) -> None:
        super().__init__(config)
        self._worker = worker
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self._on_ready is not None and sockets:
            name = sockets[0].getsockname()
            host, port = (f"{UNIX}{name}", 0) if isinstance(name, str) else name[:2]
            try:
                self._on_ready(host, port)
            except BaseException:
                await self.shutdown(sockets)
                raise

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Before uvicorn waits for open replies: this ends them.
        self._worker.interrupt()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As the base class, without raising the signal again afterwards: the caller
        goes on after a graceful stop and tidies up."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handled = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises ServerError."""
    if host.startswith(UNIX):
        return _bind_path(host.removeprefix(UNIX))
    name = "127.0.0.1" if host == "localhost" else host.strip("[]")
    try:
        family, _, _, _, address = socket.getaddrinfo(
            name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ServerError(_why_not(host, port, error)) from error


def _bind_path(path: str) -> socket.socket:
    """A socket file that this user alone may open. One that a killed server left is replaced, one
    on which somebody answers is not."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        if _left_behind(path):
            Path(path).unlink()
        listener.bind(path)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        reason = "taken" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
        raise ServerError(f"cannot listen on {path} ({reason}); choose another path") from error
    finally:
        os.umask(before)
    return listener


def _left_behind(path: str) -> bool:
    """Whether `path` is a socket on which nobody listens."""
    try:
        if not stat.S_ISSOCK(Path(path).stat().st_mode):
            return False
    except OSError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        from subllm.serving.server.port_owner import owner_of

        return f"port {port} is taken by {owner_of(host, port)}; choose another --port"
    if error.errno == errno.EACCES:
        return f"port {port} needs more rights; choose a --port above 1023"
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return f"{host} is no address of this machine; use --host 127.0.0.1"
    return f"cannot listen on {host}:{port} ({error.strerror or error}); choose another --port"


def _configure_logging(level: str) -> None:
    """Our messages from `level` on, uvicorn's from warnings on, to stderr. A caller who
    has configured logging keeps it."""
    logging.basicConfig(
        stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING
    )
    logging.getLogger("subllm").setLevel(level.upper())
