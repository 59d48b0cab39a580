"""`subllm gc`: free what nothing uses."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from subllm.cli import console
from subllm.cli.context import open_context

EXAMPLES = """
subllm gc --dry-run    say what would be freed
subllm gc
"""


def command(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Only say what would be freed.")
    ] = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the report as one JSON document.")
    ] = False,
) -> None:
    """Free space that no name needs: leftovers of cut-off downloads and extractions,
    replaced models, recoveries of models and measurements of bases that are gone. What another
    process is writing right now is spared."""
    from subllm.models.store.collect import gc

    report = gc(open_context().store, dry_run)
    if json_output:
        console.emit_json(asdict(report))
        return
    counts = ", ".join(
        f"{len(paths)} {what}{'' if len(paths) == 1 else 's'}"
        for paths, what in (
            (report.blobs, "blob"),
            (report.manifests, "manifest"),
            (report.caches, "cached file"),
            (report.partials, "unfinished piece"),
            (report.recoveries, "recovery state"),
        )
        if paths
    )
    verb = "would free" if dry_run else "freed"
    console.result(f"{verb} {console.size(report.freed)}" + (f" ({counts})" if counts else ""))
    if report.spared:
        console.note(f"{len(report.spared)} files are in use by another process and stay")
