"""`subllm logs`: what a server in the background says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from subllm.cli import console
from subllm.cli.context import Context, complete_sub_model, open_context

EXAMPLES = """
subllm logs                     the last lines
subllm logs -f                  and those to come, until Ctrl-C
subllm logs --recovery qwen2.5-coder:0.5b-python
"""

_LOOK = 0.2  # seconds between looks at a file that may grow


def command(
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")
    ] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")
    ] = 100,
    port: Annotated[
        int | None, typer.Option("--port", "-p", help="Of the server, where there are several.")
    ] = None,
    recovery: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Of the recovery of this model in the background instead.",
            autocompletion=complete_sub_model,
        ),
    ] = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the lines as one JSON document.")
    ] = False,
) -> None:
    """Show what a server that was started with --detach says, also after it has ended.

    Prompts and answers are never in it. A server on a terminal says it there; one that systemd
    started says it to the journal: journalctl --user -u subllm -f.
    """
    from subllm.errors import UsageError

    if follow and json_output:
        raise UsageError("--follow has no end and --json is one document; leave one out")
    path = _log(open_context(port=port), recovery)
    last = path.read_text(errors="replace").splitlines()[-lines:] if lines else []
    if json_output:
        console.emit_json({"file": str(path), "lines": last})
        return
    at = path.stat().st_size
    for line in last:
        console.result(line)
    if follow:
        for text in _grown(path, at):
            console.result(text, newline=False)


def _log(context: Context, recovery: str | None) -> Path:
    """Raises ServerError where there is none."""
    from subllm.cli import daemon, recover_job
    from subllm.errors import ServerError

    settings = context.settings
    if recovery is not None:
        path = recover_job.log_path(settings.home, recovery)
        if not path.exists():
            raise ServerError(
                f"no recovery of {recovery} was started in the background; "
                "'subllm recover NAME --background' does"
            )
        return path
    found = daemon.find(settings.home, settings.port)
    port = found.port if found else settings.port
    path = daemon.log_path(settings.home, port)
    if not path.exists():
        where = "says it on its terminal" if found else "was never started with --detach here"
        raise ServerError(f"the server of port {port} {where}; there is no log")
    return path


def _grown(path: Path, at: int) -> Iterator[str]:
    """What comes behind `at`, for ever; from the start where the file was begun anew."""
    while True:
        try:
            size = path.stat().st_size
            if size < at:
                at = 0
            if size > at:
                with path.open("rb") as file:
                    file.seek(at)
                    data = file.read()
                at += len(data)
                yield data.decode(errors="replace")
        except FileNotFoundError:
            at = 0
        time.sleep(_LOOK)
