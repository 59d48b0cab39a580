"""`subllm route`: which sub-model would answer, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from subllm.cli import console
from subllm.cli.context import complete_model, open_context

if TYPE_CHECKING:
    from subllm.server.jobs import ModelRef

EXAMPLES = """
subllm route src/app.ts
pbpaste | subllm route -
for f in src/*; do subllm route "$f" --json; done
"""


def command(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A file with code; '-' reads a pipe.")
    ],
    language: Annotated[
        str | None, typer.Option("--language", "-l", help="As if this language were given.")
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="As if this model were named.", autocompletion=complete_model
        ),
    ] = "auto",
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the route as one JSON document.")
    ] = False,
) -> None:
    """Say which sub-model would answer for a file, and why. No model is loaded.

    The name of the file decides where it tells a language, else what is in it. A language
    without a sub-model falls back to the dense or the general model.
    """
    from subllm.cli.ask import REASONS, read_text
    from subllm.cli.local_router import router_of
    from subllm.routing.router import Query
    from subllm.server.models import ModelSet

    text = read_text(file)
    path = None if str(file) == "-" else file.name
    context = open_context()
    context.require_models()
    models = ModelSet.of_store(context.store, _no_engine)
    route = router_of(models).route(Query(model, language=language, path=path, prompt=text))
    if json_output:
        console.emit_json(
            {
                "file": str(file),
                "model": route.model,
                "language": route.language,
                "reason": route.reason,
            }
        )
        return
    console.facts(
        [
            ("model", route.model),
            ("language", route.language or "not known"),
            ("reason", f"{route.reason} ({REASONS[route.reason]})"),
        ]
    )


def _no_engine(ref: ModelRef) -> NoReturn:
    raise AssertionError(f"routing loaded {ref.name}")
