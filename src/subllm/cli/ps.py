"""`subllm ps`: the running servers of this store."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from subllm.cli import console
from subllm.cli.context import Context, open_context
from subllm.errors import excerpt

if TYPE_CHECKING:
    from subllm.cli.daemon import Daemon

LONGEST = 120  # of a reason; --json and the server's log have all of it

EXAMPLES = """
subllm ps
subllm ps --json
"""


def command(
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the list as one JSON document.")
    ] = False,
) -> None:
    """Show running servers, what they have loaded and the memory they take.

    MEMORY is the server's resident memory; of a model it is weights and cache, those of the
    model that drafts for it included, and what models share counts for each of them. Below a
    model stands what drafted for it, and how much of that it accepted.
    """
    from subllm.cli import daemon

    context = open_context()
    servers = [_look(context, found) for found in daemon.running(context.settings.home)]
    if json_output:
        console.emit_json(servers)
        return
    if not servers:
        console.note("No server runs. Start one with: subllm serve")
        return
    console.table(
        ["URL", ("PID", "right"), ("UP", "right"), ("MEMORY", "right"), "LOADED"],
        [_row(server) for server in servers],
    )


def _look(context: Context, found: Daemon) -> dict[str, Any]:
    """A server as its process and its own /health tell it."""
    import psutil

    from subllm.cli.server_client import CONNECT_SECONDS, ServerClient
    from subllm.errors import SubllmError

    health: dict[str, Any] = {}
    memory = 0
    try:
        memory = psutil.Process(found.pid).memory_info().rss
        client = ServerClient(found.url, context.api_key)
        health = client.get("/health", seconds=CONNECT_SECONDS)
    except (psutil.Error, SubllmError):
        pass  # it ends, or does not answer: shown as such
    return {
        "url": found.url,
        "host": found.host,
        "port": found.port,
        "pid": found.pid,
        "version": found.version,
        "uptime_seconds": round(time.time() - found.started, 1),
        "memory_bytes": memory,
        "answers": bool(health),
        "loading": health.get("loading"),
        "loaded": health.get("loaded", []),
    }


def _row(server: dict[str, Any]) -> list[str]:
    loaded = [line for model in server["loaded"] for line in _lines(model)]
    if server["loading"]:
        loaded.append(f"{server['loading']} (loading)")
    if not server["answers"]:
        loaded.append("does not answer")
    return [
        server["url"],
        str(server["pid"]),
        console.duration(server["uptime_seconds"]),
        console.size(server["memory_bytes"]),
        "\n".join(loaded),
    ]


def _lines(model: dict[str, Any]) -> list[str]:
    """A loaded model, and below it what drafts for it. Servers of older versions tell less."""
    running = f", {model['active']} running" if model["active"] else ""
    lines = [f"{model['model']} ({console.size(model['resident_bytes'])}{running})"]
    drafted = model.get("drafted", {})
    if draft := model.get("draft"):
        lines.append(f"  drafts: {draft}{_accepted(drafted.get('draft'))}")
    if "ngram" in drafted:
        lines.append(f"  drafts: n-grams{_accepted(drafted['ngram'])}")
    if failure := model.get("draft_failure"):
        lines.append(f"  no draft by {excerpt(failure, LONGEST)}")
    return lines


def _accepted(counts: dict[str, int] | None) -> str:
    if not counts or not counts["tokens"]:
        return ""
    return f", {counts['accepted'] / counts['tokens']:.0%} of {counts['tokens']:,} tokens accepted"
