"""`subllm stop`: end a running server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from subllm.cli import console
from subllm.cli.context import open_context

if TYPE_CHECKING:
    from subllm.cli.daemon import Daemon

EXAMPLES = """
subllm stop
subllm stop --port 8080
subllm stop --all
"""


def command(
    port: Annotated[
        int | None, typer.Option("--port", "-p", help="Default: the only server, if one runs.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every server of this store.")] = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print what was stopped as one JSON document.")
    ] = False,
) -> None:
    """Stop a running server. Answers under way end first, within seconds.

    Exits with 8 when there is none.
    """
    from subllm.cli import daemon

    context = open_context()
    running = daemon.running(context.settings.home)
    chosen = _choose(running, port, every, context.settings.port)
    for server in chosen:
        daemon.stop(server)
        if not json_output:
            console.result(f"stopped {server.url} (pid {server.pid})")
    if json_output:
        stopped: list[dict[str, Any]] = [
            {"url": server.url, "port": server.port, "pid": server.pid} for server in chosen
        ]
        console.emit_json(stopped)


def _choose(running: list[Daemon], port: int | None, every: bool, usual: int) -> list[Daemon]:
    from subllm.errors import ServerError, UsageError

    if every and port is not None:
        raise UsageError("--all and --port exclude each other; leave one out")
    if not running:
        raise ServerError("no server of this store runs; start one with 'subllm serve'")
    if every or (port is None and len(running) == 1):
        return running
    ports = [server.port for server in running]
    if port is None and usual not in ports:
        raise UsageError(
            f"several servers run; say --port {' or '.join(map(str, ports))}, or --all"
        )
    wanted = port or usual
    if wanted not in ports:
        raise ServerError(
            f"no server of this store runs on port {wanted}, but on {', '.join(map(str, ports))}"
        )
    return [server for server in running if server.port == wanted]
