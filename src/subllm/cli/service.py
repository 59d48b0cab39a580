"""`subllm service`: the server as a service of the system, started when you log in."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from subllm.cli import console
from subllm.cli.context import Context, open_context

EXAMPLES = """
subllm service install            write it and start it
subllm service install --port 11436 --context-length 16384
subllm service status
subllm service uninstall
"""

ACTIONS = ("install", "uninstall", "status")


def complete_action(incomplete: str) -> list[str]:
    return [action for action in ACTIONS if action.startswith(incomplete)]


def command(
    action: Annotated[
        str,
        typer.Argument(
            metavar="ACTION", help=f"{', '.join(ACTIONS)}.", autocompletion=complete_action
        ),
    ],
    host: Annotated[str | None, typer.Option(help="As of 'subllm serve'.")] = None,
    port: Annotated[int | None, typer.Option("--port", "-p", help="As of 'subllm serve'.")] = None,
    context_length: Annotated[int | None, typer.Option(help="As of 'subllm serve'.")] = None,
    no_start: Annotated[
        bool, typer.Option("--no-start", help="With install: write the file and start nothing.")
    ] = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON document.")
    ] = False,
) -> None:
    """Let the system keep the server running: a systemd user unit, or a launchd agent on macOS.

    It starts when you log in (on Linux without anybody logged in after 'loginctl enable-linger')
    and again when it fails. Everything else is set in config.toml, a key too: a service does not
    see the environment of your shell.
    """
    from subllm.cli.services import manager
    from subllm.errors import UnknownNameError, UsageError

    if action not in ACTIONS:
        raise UnknownNameError("action", action, ACTIONS, f"known are {', '.join(ACTIONS)}")
    if action != "install" and (host or port or context_length or no_start):
        raise UsageError(f"options belong to 'install', not to '{action}'; leave them out")
    context = open_context(host=host, port=port, context_length=context_length)
    service = manager()
    if action == "install":
        options = {"host": host, "port": port, "context-length": context_length}
        arguments = [
            part
            for name, value in options.items()
            if value is not None
            for part in (f"--{name}", str(value))
        ]
        text = service.text(_command(arguments), _environment(context))
        service.write(text)
        if not no_start:
            service.start()
    elif action == "uninstall":
        service.remove()
    installed, running = service.file.exists(), service.running()
    if json_output:
        file = str(service.file)
        console.emit_json({"file": file, "installed": installed, "running": running})
        return
    console.facts(
        [
            ("service", "installed" if installed else "not installed"),
            ("state", ("running" if running else "not running") if installed else ""),
            ("file", str(service.file)),
        ]
    )
    if action == "install":
        console.note(f"It says what it does to {service.log}.")


def _command(arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", "subllm", "serve", *arguments]


def _environment(context: Context) -> dict[str, str]:
    """What the service is told of ours: where store, settings and catalog are. Raises
    SettingsError for a key that only this shell knows."""
    from subllm.errors import SettingsError
    from subllm.settings import CONFIG_VARIABLE, config_path

    if os.environ.get("SUBLLM_API_KEY"):
        raise SettingsError(
            f'SUBLLM_API_KEY is set in this shell alone; write api_key = "..." into '
            f"{config_path()} (readable by you alone) and unset it"
        )
    told = {"SUBLLM_HOME": str(context.settings.home)}
    if os.environ.get(CONFIG_VARIABLE):
        told[CONFIG_VARIABLE] = str(config_path().absolute())
    if context.settings.catalog is not None:
        told["SUBLLM_CATALOG"] = str(context.settings.catalog)
    return told
