"""Lines of a page that call subllm, parsed by the real command line and not run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import typer

from subllm.cli.app import app
from unit.docs.markdown import Page

_CALL = re.compile(r"^[\w./~-]*\bsubllm$")
_ENVIRONMENT = re.compile(r"^\w+=")
_PLACEHOLDER = re.compile(r"^(?:[A-Z]+|…|\.\.\.)$")


def commands_of(page: Page) -> Iterator[list[str]]:
    """The arguments after `subllm` of every call in the page's blocks and spans.

    In a block of `console` only lines after a "$ " are calls, the others are what they print.
    """
    for language, lines in page.blocks:
        for line in _whole(lines):
            if line.startswith("$ "):
                yield from _calls(line[2:])
            elif language != "console":
                yield from _calls(line)
    for span in page.spans:
        if span.startswith("subllm "):
            yield from _calls(span)


def _whole(lines: list[str]) -> Iterator[str]:
    """Lines with those that a backslash continues."""
    return iter("\n".join(lines).replace("\\\n", " ").split("\n"))


def _calls(line: str) -> Iterator[list[str]]:
    line = line.strip()
    if "subllm" not in line or line.startswith("#"):
        return
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&<>")
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:  # a quotation that ends on another line
        words = line.split()
    call: list[str] | None = None
    start = True
    for word in words:
        if set(word) <= set(";|&<>"):
            if call is not None:
                yield call
            call, start = None, True
        elif call is not None:
            call.append(word)
        elif start and _CALL.match(word):
            call = []
        elif not (_ENVIRONMENT.match(word) or word == "do"):
            start = False
    if call is not None:
        yield call


def complaint(arguments: list[str]) -> str:
    """What the command line says of them, "" where it takes them. Nothing is run; values are not
    looked at, as files of examples do not exist."""
    command: Any = typer.main.get_command(app)
    path = "subllm"
    while True:
        context = command.context_class(command, info_name=path)
        try:
            _, rest, _ = command.make_parser(context).parse_args(list(arguments))
        except typer.TyperException as error:
            return f"{path}: {error.format_message()}"
        if not hasattr(command, "commands"):
            if rest:
                return f"{path}: takes no {' '.join(rest)!r}"
            return ""
        if not rest or _PLACEHOLDER.match(rest[0]):
            return ""
        found = command.get_command(context, rest[0]) if rest[0] in command.commands else None
        if found is None:
            return f"{path}: has no command {rest[0]!r}"
        command, path, arguments = found, f"{path} {rest[0]}", rest[1:]


def options_of(command: Any = None) -> set[str]:
    """All options of the command, by default of subllm, and of the commands below it."""
    command = command or typer.main.get_command(app)
    found = {"--help"} | {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
    for name in getattr(command, "commands", ()):
        found |= options_of(command.commands[name])
    return found
