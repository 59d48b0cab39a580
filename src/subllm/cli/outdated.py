"""`subllm outdated`: what the same commands would make otherwise today."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from subllm.cli import console
from subllm.cli.context import Context, complete_name, open_context

if TYPE_CHECKING:
    from collections.abc import Collection

    from subllm.making.extraction.outdated import Findings, Outdated

EXAMPLES = """
subllm outdated
subllm outdated qwen2.5-coder:0.5b-python
subllm update --all --background             what to do about it
"""


def command(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="Bases or models of the store. Default: all.",
            autocompletion=complete_name,
        ),
    ] = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the findings as one JSON document.")
    ] = False,
) -> None:
    """Say what in the store is not up to date, why, and how long it would take to make it again.

    A base is outdated when its repository on the hub moved (one request each); a model when its
    base is another one now, when this subllm chooses something else of what was left to it
    (defaults, recipe, text that comes along), when your own code that it was made from changed,
    or when it was pulled from where another one lies now. What you chose stays chosen.

    Nothing is changed. Without a network the rest is told all the same.
    """
    from subllm.cli.progress_bars import RichProgress

    context = open_context()
    with RichProgress():
        findings = search(context, names or ())
    if json_output:
        console.emit_json(document(findings))
        return
    show(findings)


def search(context: Context, names: Collection[str]) -> Findings:
    """Raises UnknownNameError."""
    from subllm.errors import OfflineError
    from subllm.making.extraction.outdated import find_outdated
    from subllm.models.acquire.share.place import Place
    from subllm.sharing.exchange.open import open_place

    settings = context.settings

    def newest(repo: str, revision: str) -> str:
        if settings.offline:
            raise OfflineError("SUBLLM_OFFLINE is set, the hub was not asked")
        from subllm.models.acquire.hub_client import HubClient

        client = HubClient(probe_seconds=settings.hub_probe_seconds)
        return client.list_files(repo, revision).commit

    def opened(where: str) -> Place:
        return open_place(where, offline=settings.offline, probe_seconds=settings.hub_probe_seconds)

    return find_outdated(context.store, context.catalog, newest, opened, names)


def show(findings: Findings) -> None:
    if findings.found:
        console.table(
            ["NAME", "WHY", ("TAKES", "right")],
            [[one.name, "\n".join(one.why), takes(one)] for one in findings.found],
        )
        able = [one.name for one in findings.found if one.how]
        if able:
            console.note(f"'subllm update {able[0]}' or 'subllm update --all' makes them again")
    elif findings.unasked:
        console.result("up to date as far as it is known here")
    else:
        console.result("up to date")
    for line in findings.unasked:
        console.note(f"not asked: {line}")
    if findings.unknown:
        console.note(
            f"of {len(findings.unknown)} models ({', '.join(findings.unknown[:2])}"
            f"{', ...' if len(findings.unknown) > 2 else ''}) it is not known how they were asked "
            "for (copies, tuned ones, those of an earlier version): only their base was looked at"
        )


def takes(one: Outdated) -> str:
    """`about 35 min`, as the last time."""
    if not one.how:
        return "by hand"
    if one.seconds is None:
        return "a fetch" if one.how[0] == "pull" else ""
    minutes = round(one.seconds / 60)
    return f"about {minutes} min" if minutes else f"about {one.seconds:.0f} s"


def document(findings: Findings) -> dict[str, Any]:
    return {
        "outdated": [
            {
                "name": one.name,
                "kind": one.kind,
                "why": list(one.why),
                "command": one.command or None,
                "seconds": one.seconds,
            }
            for one in findings.found
        ],
        "not_asked": findings.unasked,
        "unknown": findings.unknown,
    }
