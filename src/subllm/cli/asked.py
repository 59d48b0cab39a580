"""What was said on a command line, in words that say the same again."""

from __future__ import annotations

from collections.abc import Collection

import typer


def explicit(context: typer.Context, leave: Collection[str]) -> list[str]:
    """Options that were given, by their long names, with their values; those of `leave`, by the
    names of their parameters, are left out."""
    words = []
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        options = [option for option in parameter.opts if option.startswith("--")]
        if not options or name in leave or source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[name]
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if one is True:
                words.append(options[0])
            elif one not in (None, False, ""):
                words += [options[0], str(one)]
    return words
