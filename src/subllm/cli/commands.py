"""Names and one-line help of all commands, so that `subllm --help` imports none of them.

A command lives in the module `subllm.cli.<name>`, which has a function `command` (its
docstring is the help) and may have `EXAMPLES`, lines shown below the options, and `MOVED`, options
that it had once (`moved`). One that has commands of its own has a `group` of them instead.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperGroup

from subllm.cli.moved import Moved, command_class

SECTIONS = ("Models", "Serving", "Asking", "Shell")


@dataclass(frozen=True)
class CommandInfo:
    """What is known of a command before its module is imported."""

    name: str
    section: str
    summary: str


COMMANDS: tuple[CommandInfo, ...] = (
    CommandInfo("pull", "Models", "Fetch a base model, or models that somebody pushed."),
    CommandInfo("extract", "Models", "Extract the sub-model of a language from a base."),
    CommandInfo("add", "Models", "Make a dense base servable beside its sub-models."),
    CommandInfo("recover", "Models", "Let a sub-model learn on from its dense base."),
    CommandInfo("tune", "Models", "Make a sub-model of your own code from one in the store."),
    CommandInfo("data", "Models", "Make text to learn from, on this machine."),
    CommandInfo("outdated", "Models", "Say what would be made otherwise today, and why."),
    CommandInfo("update", "Models", "Fetch and extract again what is not up to date."),
    CommandInfo("list", "Models", "List what the store holds, with sizes."),
    CommandInfo("show", "Models", "Show all about one model: how made, how big, how good."),
    CommandInfo("compare", "Models", "Compare which weights sub-models keep."),
    CommandInfo("eval", "Models", "Measure how good a model is: pass@k, perplexity, agreement."),
    CommandInfo("study", "Models", "Measure many sub-models on many tasks: the paper's tables."),
    CommandInfo("bench", "Models", "Measure how fast a model is here, beside its dense base."),
    CommandInfo("export", "Models", "Write a model for transformers, vLLM or llama.cpp."),
    CommandInfo("cp", "Models", "Give a model a second name."),
    CommandInfo("push", "Models", "Give models away: by the hub, a directory or a file."),
    CommandInfo("rm", "Models", "Remove models by name."),
    CommandInfo("verify", "Models", "Check stored bytes against their digests."),
    CommandInfo("gc", "Models", "Free space that nothing uses any more."),
    CommandInfo("serve", "Serving", "Start the OpenAI-compatible server."),
    CommandInfo("ps", "Serving", "Show running servers and the models they have loaded."),
    CommandInfo("stop", "Serving", "Stop a running server."),
    CommandInfo("logs", "Serving", "Show what a server in the background says."),
    CommandInfo("config", "Serving", "Set up an editor or another client for the server."),
    CommandInfo("service", "Serving", "Let the system keep the server running."),
    CommandInfo("run", "Asking", "Chat with a model, making it first where it is missing."),
    CommandInfo("complete", "Asking", "Complete code from an argument, a file or a pipe."),
    CommandInfo("chat", "Asking", "Chat with a model."),
    CommandInfo("route", "Asking", "Say which sub-model would answer for a file, and why."),
    CommandInfo("doctor", "Shell", "Say what to expect of this machine."),
    CommandInfo("completion", "Shell", "Print or install completion for your shell."),
)


class LazyCommands(MutableMapping[str, Any]):
    """Name -> click command; the module is imported when the command is looked up."""

    def __init__(self, infos: tuple[CommandInfo, ...]) -> None:
        self._infos = {info.name: info for info in infos}
        self._built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._built:
            self._built[name] = build_command(self._infos[name])
        return self._built[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._built[name] = command

    def __delitem__(self, name: str) -> None:
        del self._infos[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._infos)

    def __len__(self) -> int:
        return len(self._infos)


def build_command(info: CommandInfo) -> Any:
    """The click command of one module."""
    module = importlib.import_module(f"subllm.cli.{info.name}")
    if hasattr(module, "group"):
        found = typer.main.get_command(module.group)
        found.name, found.short_help = info.name, info.summary
        return found
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    examples: str = getattr(module, "EXAMPLES", "")
    moved: Mapping[str, Moved] = getattr(module, "MOVED", {})
    app.command(
        info.name,
        cls=command_class(moved),
        short_help=info.summary,
        epilog=verbatim("Examples:", examples) if examples else None,
    )(module.command)
    return typer.main.get_command(app)


def verbatim(title: str, lines: str) -> str:
    """Help text that is neither rewrapped nor reindented (a click `\\b` paragraph)."""
    body = "\n".join(f"  {line}".rstrip() for line in lines.strip("\n").splitlines())
    return f"\b\n{title}\n{body}"


class LazyGroup(TyperGroup):
    """A group whose help comes from the registry; see LazyCommands."""

    def __init__(self, **attrs: Any) -> None:
        attrs["commands"] = None
        super().__init__(**attrs)
        self.commands = LazyCommands(COMMANDS)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Commands by section, with what the registry says of each."""
        width = max(len(info.name) for info in COMMANDS)
        for section in SECTIONS:
            with formatter.section(section):
                formatter.write_dl(
                    [
                        (info.name.ljust(width), info.summary)
                        for info in COMMANDS
                        if info.section == section
                    ]
                )
