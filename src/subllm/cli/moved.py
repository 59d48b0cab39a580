"""Options that a command had: what stands in their place, in one line.

A command's module says `MOVED = {"--pattern": in_recipe("[prune] pattern = {value}")}`; the
command then refuses `--pattern 8:16` with what to write instead, without having the option.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from typer.core import TyperCommand

from subllm.errors import UsageError

Moved = Callable[[str | None], str]
"""The value that was given, if any -> where the option went: "into ...; see ..."."""


def in_recipe(line: str, form: Callable[[str], str] | None = None) -> Moved:
    """Of an option that is a line of a recipe now. `{value}` in it is the value as TOML, which
    `form` makes of it instead of `toml`."""
    return moved_into("the recipe", line, "subllm recipe show default", form)


def moved_into(what: str, line: str, see: str, form: Callable[[str], str] | None = None) -> Moved:
    """The same of another place; `see` is a command that shows it."""

    def said(value: str | None) -> str:
        written = (form or toml)(value) if value is not None else "..."
        return f"into {what}: {line.replace('{value}', written)}; see '{see}'"

    return said


def command_class(moved: Mapping[str, Moved]) -> type[TyperCommand]:
    """A command that knows where those options went."""

    class Command(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            if not ctx.resilient_parsing:
                refuse_moved(moved, args)
            return super().parse_args(ctx, args)

    return Command


def refuse_moved(moved: Mapping[str, Moved], arguments: Sequence[str]) -> None:
    """Raises UsageError for the first of `arguments` that is one of them; what follows "--" is
    none."""
    for place, argument in enumerate(arguments):
        if argument == "--":
            return
        option, given, value = argument.partition("=")
        if option not in moved:
            continue
        if not given:
            after = arguments[place + 1] if place + 1 < len(arguments) else "-"
            given, value = ("=", after) if not after.startswith("-") else ("", "")
        raise UsageError(f"{option} moved {moved[option](value if given else None)}")


def toml(value: str) -> str:
    """A number as it is, anything else as a text."""
    if re.fullmatch(r"-?\d+(\.\d+)?([eE]-?\d+)?", value):
        return value
    return f"'{value}'" if "'" not in value and value.isprintable() else json.dumps(value)


def toml_list(value: str) -> str:
    """Of a,b"""
    return "[" + ", ".join(f"'{part.strip()}'" for part in value.split(",") if part.strip()) + "]"


def toml_table(value: str) -> str:
    """Of name=value"""
    name, _, rest = value.partition("=")
    return f"{{{name} = {toml(rest)}}}" if rest else "{...}"
