"""`subllm rm`: remove names and what only they needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from subllm.cli import console
from subllm.cli.context import complete_name, open_context

_NAMED = 3  # of the models that need what stays

EXAMPLES = """
subllm rm qwen2.5-coder:0.5b-java
subllm rm qwen2.5-coder:0.5b --yes    its sub-models go on working
"""


def command(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME", help="Bases or models.", autocompletion=complete_name),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print what was freed as one JSON document.")
    ] = False,
) -> None:
    """Remove models by name. Bytes that other models share stay.

    Asks first on a terminal; elsewhere --yes is needed.
    """
    from subllm.errors import UsageError
    from subllm.models.store.collect import remove

    store = open_context().store
    names = list(dict.fromkeys(names))
    for name in names:
        store.resolve(name)  # all or nothing: a typing error removes none
    listed = ", ".join(names)
    if not console.confirm(f"Remove {listed}?", yes=yes):
        raise UsageError(f"nothing was removed; say --yes to remove {listed}")
    reports = [remove(store, name) for name in names]
    if json_output:
        console.emit_json([asdict(report) for report in reports])
        return
    for report in reports:
        stays = ""
        if report.shared:
            stays = f"; {console.size(report.shared)} stay"
            if report.shared_with:
                stays += f" for {_few(report.shared_with)}"
        console.result(f"removed {report.name}, freed {console.size(report.freed)}{stays}")


def _few(names: Sequence[str]) -> str:
    """`a, b, c and 4 others`"""
    if len(names) <= _NAMED + 1:
        return ", ".join(names)
    return f"{', '.join(names[:_NAMED])} and {len(names) - _NAMED} others"
