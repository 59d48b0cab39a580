"""`subllm recipe`: what `extract` and `recover` take with `--recipe`."""

from __future__ import annotations

from typing import Annotated

import typer

from subllm.cli import console
from subllm.cli.commands import verbatim

EXAMPLES = """
subllm recipe list
subllm recipe show default                    every key, and what it does
subllm recipe show small > mine.toml
subllm extract python --recipe mine.toml      leave out what stays as it is
"""

group = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Show the recipes that 'extract' and 'recover' take: all that decides how a sub-model is "
    "made, in a TOML file.",
    epilog=verbatim("Examples:", EXAMPLES),
)


@group.command("list", short_help="List the built-in recipes.")
def show_all(
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the recipes as one JSON document.")
    ] = False,
) -> None:
    """List the built-in recipes. A file of your own is one too."""
    from subllm.making.extraction.recipes.read import BUILT_IN, built_in

    if json_output:
        console.emit_json({name: built_in(name).recipe.sections() for name in BUILT_IN})
        return
    console.table(["NAME", "WHAT IT IS FOR"], [[name, what] for name, what in BUILT_IN.items()])


@group.command("show", short_help="Print a recipe.")
def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="default, fast, small, editor, a file or of:MODEL of the store."
        ),
    ],
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the whole recipe as one JSON document.")
    ] = False,
) -> None:
    """Print a recipe as TOML: a built-in one with comments that teach its keys, any other one in
    full."""
    from subllm.cli.recipes import asked_for
    from subllm.making.extraction.recipes.read import BUILT_IN, built_in_text
    from subllm.making.extraction.recipes.write import to_toml

    recipe = asked_for([name]).recipe
    if json_output:
        console.emit_json(recipe.sections())
    elif name in BUILT_IN:
        console.result(built_in_text(name).rstrip())
    else:
        console.result(f"format = 1\n\n{to_toml(recipe.sections())}")
