"""`subllm serve`: the OpenAI-compatible server."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from subllm.cli import console
from subllm.cli.context import Context, complete_speculation, open_context
from subllm.cli.moved import Moved, toml
from subllm.machine import free_memory
from subllm.quantities import bytes_of, seconds_of
from subllm.settings import ENV_PREFIX, help_for

if TYPE_CHECKING:
    from subllm.cli.daemon import Daemon
    from subllm.serving.server.config import ServerConfig
    from subllm.serving.server.idle import Update
    from subllm.serving.server.wanted import Extract

EXAMPLES = """
subllm serve                     until Ctrl-C
subllm serve --detach            in the background; 'subllm stop' ends it
subllm serve --host unix:~/subllm.sock
SUBLLM_API_KEY=secret subllm serve --host 0.0.0.0
"""


def _setting(name: str) -> Moved:
    variable = f"{ENV_PREFIX}{name.upper()}"

    def said(value: str | None) -> str:
        if value is None:
            return f"to config.toml: {name} = ... (or {variable})"
        return f"to config.toml: {name} = {toml(value)} (or {variable}={shlex.quote(value)})"

    return said


MOVED = {
    f"--{name.replace('_', '-')}": _setting(name)
    for name in ("backend", "device", "max_loaded_models", "max_queue", "log_level")
}


def command(
    host: Annotated[str | None, typer.Option(help=help_for("host"))] = None,
    port: Annotated[int | None, typer.Option("--port", "-p", help=help_for("port"))] = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Start it in the background and return.")
    ] = False,
    threads: Annotated[int | None, typer.Option(help=help_for("threads"))] = None,
    context_length: Annotated[int | None, typer.Option(help=help_for("context_length"))] = None,
    speculation: Annotated[
        str | None,
        typer.Option(help=help_for("speculation"), autocompletion=complete_speculation),
    ] = None,
    memory: Annotated[str | None, typer.Option(metavar="SIZE", help=help_for("memory"))] = None,
    preload: Annotated[
        str | None, typer.Option(metavar="NAME,...", help=help_for("preload"))
    ] = None,
    keep_alive: Annotated[
        str | None, typer.Option(metavar="DURATION", help=help_for("keep_alive"))
    ] = None,
    allowed_hosts: Annotated[
        str | None, typer.Option(metavar="NAME,...", help=help_for("allowed_hosts"))
    ] = None,
    allowed_origins: Annotated[
        str | None, typer.Option(metavar="ORIGIN,...", help=help_for("allowed_origins"))
    ] = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print where it listens as one JSON document.")
    ] = False,
) -> None:
    """Serve the store's models to editors over the OpenAI API, on this machine.

    Each request goes to the sub-model of its language. Models load when first asked for and
    unload when nobody has used them for a while, and new ones are served without a restart. A
    dense model answers faster where a smaller one of its family can draft for it, such as the
    sub-model of the request's language.
    Ctrl-C or SIGTERM ends the server with exit code 0. Clients must send SUBLLM_API_KEY when
    it is set; another host than this machine needs it.

    More is set in config.toml (in your configuration directory, or where SUBLLM_CONFIG points), as
    in device = "cpu", or in the environment, as in SUBLLM_DEVICE=cpu: device, backend, kv_type,
    max_loaded_models, max_queue, log_level, auto_extract, auto_update; and what the options set.
    """
    given = {
        "host": host,
        "port": port,
        "threads": threads,
        "context_length": context_length,
        "speculation": speculation,
        "memory": memory,
        "preload": preload,
        "keep_alive": keep_alive,
        "allowed_hosts": allowed_hosts,
        "allowed_origins": allowed_origins,
    }
    context = open_context(**given)
    config = _config(context)
    _refuse_second(context)
    if detach:
        _detach(context, given, json_output)
    else:
        _serve(context, config, json_output)


def _config(context: Context) -> ServerConfig:
    """Raises SettingsError for what must not be served."""
    from subllm.serving.server.config import ServerConfig
    from subllm.serving.server.drafting import check_default

    settings = context.settings
    check_default(settings.speculation, _models(context))
    for name in settings.preload:
        context.store.model(name)
    return ServerConfig(
        host=settings.host,
        port=settings.port,
        api_key=context.api_key,
        allowed_hosts=settings.allowed_hosts,
        allowed_origins=settings.allowed_origins,
        max_engines=settings.max_loaded_models,
        memory=bytes_of(settings.memory, free_memory()),
        preload=settings.preload,
        keep_alive=seconds_of(settings.keep_alive),
        max_queue=settings.max_queue,
        context_length=settings.context_length,
        speculation=settings.speculation,
    )


def _serve(context: Context, config: ServerConfig, json_output: bool) -> None:
    """Until a signal."""
    from subllm.cli import daemon
    from subllm.serving.server.loading import StoreLoader
    from subllm.serving.server.run import serve

    settings = context.settings
    with ExitStack() as stack:

        def on_ready(host: str, port: int) -> None:
            # A socket file has no port: the setting's names the record.
            me = stack.enter_context(daemon.recorded(settings.home, host, port or settings.port))
            _announce(context, me, json_output)
            if sys.stdout.isatty() and not json_output:
                console.note("Ctrl-C stops it.")

        loader = StoreLoader(
            context.store,
            backend=settings.backend,
            device=settings.device,
            threads=settings.threads,
            kv_type=settings.kv_type,
            screened_head=settings.screened_head,
        )
        serve(
            loader,
            config,
            on_ready=on_ready,
            extract=_extractor(settings.home) if settings.auto_extract else None,
            update=_updater(settings.home) if settings.auto_update else None,
            log_level=settings.log_level,
        )


def _extractor(home: Path) -> Extract:
    """Begins an extraction that goes on when the server has ended."""
    from subllm.cli import background

    def extract(language: str, base: str) -> Callable[[], bool]:
        log = home / "run" / f"extract-{language}.log"
        process = background.spawn(["extract", language, "--base", base], log, home, nice=19)
        return lambda: process.poll() is None

    return extract


def _updater(home: Path) -> Update:
    """Begins `subllm update --all`, which goes on when the server has ended."""
    from subllm.cli import background, update_job

    def update() -> Callable[[], bool]:
        log = update_job.log_path(home)
        process = background.spawn(["update", "--all"], log, home, nice=update_job.LOWEST)
        return lambda: process.poll() is None

    return update


def _detach(context: Context, given: Mapping[str, object], json_output: bool) -> None:
    from subllm.cli import daemon

    settings = context.settings
    options = []
    for name, value in given.items():
        if value is not None and name not in ("host", "port"):
            options += [f"--{name.replace('_', '-')}", str(value)]
    started = daemon.launch(settings.home, settings.host, settings.port, options, context.api_key)
    _announce(context, started, json_output)
    if not json_output:
        console.result(f"log: {daemon.log_path(settings.home, settings.port)}")
        only = "" if len(daemon.running(settings.home)) == 1 else f" --port {started.port}"
        console.result(f"'subllm stop{only}' ends it.")


def _refuse_second(context: Context) -> None:
    """A clearer word than "port taken" where the port is taken by us."""
    from subllm.cli import daemon
    from subllm.errors import ServerError

    settings = context.settings
    for server in daemon.running(settings.home):
        if server.port == settings.port:
            raise ServerError(
                f"a server of this store runs on port {server.port} already (pid {server.pid}); "
                "use it, stop it with 'subllm stop', or choose another --port"
            )


def _models(context: Context) -> list[str]:
    from subllm.models.store.names import kind_of

    return sorted(name for name in context.store.names() if kind_of(name) == "model")


def _announce(context: Context, server: Daemon, json_output: bool) -> None:
    """Where it listens, what it serves, what to tell an editor."""
    models = _models(context)
    socket_file = server.url.removeprefix("unix:") if server.url.startswith("unix:") else None
    address = f"{server.url}/v1" if socket_file is None else server.url
    if json_output:
        console.emit_json(
            {
                "url": address,
                "host": server.host,
                "port": server.port,
                "pid": server.pid,
                "models": models,
            }
        )
        return
    key = "the one in SUBLLM_API_KEY" if context.api_key else "any (none is needed)"
    served = ", ".join(models) or "none yet; 'subllm extract python' makes one, served at once"
    editors = f"OpenAI-compatible, base URL {address}, model auto, API key {key}"
    if socket_file is not None:
        editors = f"as curl --unix-socket {socket_file} http://localhost/v1/models, API key {key}"
    page = "" if socket_file else f"{server.url}/ shows what runs and lets you try it"
    console.facts(
        [
            ("listening", address + _beyond(server.host)),
            ("models", served),
            ("editors", editors),
            ("page", page),
        ]
    )


def _beyond(host: str) -> str:
    from subllm.serving.server.config import is_loopback

    return "" if is_loopback(host) else f" (and from other machines: {host})"
