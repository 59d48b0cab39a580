"""`subllm config`: what an editor or another client is told about the server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from subllm.cli import console
from subllm.cli.context import Context, complete_model, open_context

if TYPE_CHECKING:
    from subllm.cli.editors.endpoint import Endpoint

EXAMPLES = """
subllm config continue            print it, to be put in by hand
subllm config zed --write         into Zed's settings, a backup beside them
subllm config opencode --model qwen2.5-coder:1.5b
subllm config aider --write --file .aider.conf.yml
"""


CLIENTS = (
    "continue",
    "vscode-llama",
    "vim-llama",
    "zed",
    "minuet",
    "twinny",
    "tabby",
    "jupyter",
    "opencode",
    "aider",
    "cline",
)


def complete_client(incomplete: str) -> list[str]:
    return [name for name in CLIENTS if name.startswith(incomplete)]


def command(
    client: Annotated[
        str,
        typer.Argument(
            metavar="CLIENT",
            help=f"One of {', '.join(CLIENTS)}.",
            autocompletion=complete_client,
        ),
    ],
    write: Annotated[
        bool,
        typer.Option(
            "--write", "-w", help="Put it into the client's own file. What else is there stays."
        ),
    ] = False,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="With --write: this file. Default: where it looks."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A model of 'subllm list' or a base. Default: the base, routed by language.",
            autocompletion=complete_model,
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", "-p", help="Of the server, where several run.")
    ] = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print all about it as one JSON document.")
    ] = False,
) -> None:
    """Print the configuration of an editor or another client for the running server.

    It goes to stdout as the client's file has it; what is left to do goes to stderr. With
    --write it is merged into that file: comments and all other settings stay, the file as it
    was is kept beside it, and a file that cannot be changed safely is left alone. Without a
    server the configured host and port are used. A base is routed by language.
    """
    from subllm.cli.editors.table import TOOLS
    from subllm.errors import UnknownNameError, UsageError

    if client not in TOOLS:
        raise UnknownNameError("client", client, TOOLS, f"known are {', '.join(TOOLS)}")
    if file is not None and not write:
        raise UsageError("--file says where to write; add --write")
    context = open_context(port=port)
    tool = TOOLS[client]
    endpoint, running = _endpoint(context, model)
    path = file.absolute() if file else tool.file()
    text, backup = tool.text(endpoint), None
    changed = False
    if write:
        from subllm.cli.editors.write import write_into

        changed, backup = write_into(path, tool, endpoint)
    notes = tool.notes(endpoint)
    if json_output:
        from subllm.cli.editors.tool import merged

        console.emit_json(
            {
                "client": tool.name,
                "file": str(path),
                "url": endpoint.url,
                "model": endpoint.model,
                "running": running,
                "settings": merged(tool.gentle(endpoint), tool.settings(endpoint)),
                "text": text,
                "written": write,
                "changed": changed,
                "backup": str(backup) if backup else None,
                "notes": notes,
            }
        )
        return
    if not running:
        console.note(
            f"No server runs: this is for {endpoint.url}, where 'subllm serve --detach' starts one."
        )
    if write:
        console.result(f"{path}: {'written' if changed else 'has it already'}")
        if backup is not None:
            console.result(f"{backup}: as it was")
    else:
        console.result(text, newline=False)
        console.note(f"Its place is {path}; --write merges it in.")
    for note in notes:
        console.note(note)


def _endpoint(context: Context, model: str | None) -> tuple[Endpoint, bool]:
    """Where the server answers, or would; and whether it does."""
    from subllm.cli import daemon
    from subllm.cli.editors.endpoint import Endpoint
    from subllm.cli.server_client import CONNECT_SECONDS, ServerClient
    from subllm.errors import UsageError
    from subllm.served_context import served_context

    settings = context.settings
    name, longest = _model(context, model)
    length = served_context(longest, settings.context_length)
    found = daemon.find(settings.home, settings.port)
    url = found.url if found is not None else daemon.url_of(settings.host, settings.port)
    if url.startswith("unix:"):
        raise UsageError(
            f"the server's place is the socket file {url.removeprefix('unix:')}, which editors "
            "cannot ask; start one with --host 127.0.0.1"
        )
    if found is None:
        return Endpoint(url, name, length, context.api_key), False
    client = ServerClient(found.url, context.api_key)
    running = client.healthy()
    if running:
        told = client.get(f"/v1/models/{name}", seconds=CONNECT_SECONDS)
        length = told.get("context_length") or length
    return Endpoint(found.url, name, length, context.api_key), running


def _model(context: Context, wanted: str | None) -> tuple[str, int]:
    """The model to name, and the longest context of those that may answer for it. Raises
    NoModelError and UnknownNameError."""
    from subllm.cli.local_router import router_of, served_models
    from subllm.errors import UsageError
    from subllm.serving.routing.router import AUTO
    from subllm.serving.server.config import ServerConfig

    context.require_models()
    models = served_models(context.store)
    served = models.models()
    if wanted is None:
        bases = sorted({model.manifest.base.name for model in served.values()})
        usual = ServerConfig.default_base
        wanted = usual if usual in bases else bases[0]
    elif wanted == AUTO:
        raise UsageError(
            "clients choose the format of prompts by the model's family; name a base instead"
        )
    name = router_of(models).check(wanted)
    lengths = [
        model.prompt.context_length
        for model in served.values()
        if name in (model.ref.name, model.manifest.base.name)
    ]
    return name, min(lengths)
