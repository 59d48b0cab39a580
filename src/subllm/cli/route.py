"""`subllm route`: which sub-model would answer, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from subllm.cli import console
from subllm.cli.context import complete_model, open_context

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
    without a sub-model falls back to the dense or the general model. For a dense model the
    smaller one is told that would draft.
    """
    from subllm.cli.ask import DRAFT_REASONS, REASONS, read_text
    from subllm.cli.local_router import router_of, served_models
    from subllm.serving.routing.router import Query
    from subllm.serving.server.drafting import Drafter, check_default

    text = read_text(file)
    path = None if str(file) == "-" else file.name
    context = open_context()
    context.require_models()
    models = served_models(context.store)
    check_default(context.settings.speculation, models.models())
    router = router_of(models)
    query = Query(model, language=language, path=path, prompt=text)
    route = router.route(query)
    drafter = Drafter(models, router, context.settings.speculation)
    drafting = drafter.choose(None, query, route, models.get(route.model))
    if json_output:
        console.emit_json(
            {
                "file": str(file),
                "model": route.model,
                "language": route.language,
                "reason": route.reason,
                "draft": drafting.draft.name if drafting.draft else None,
                "draft_reason": drafting.reason,
            }
        )
        return
    facts = [
        ("model", route.model),
        ("language", route.language or "not known"),
        ("reason", f"{route.reason} ({REASONS[route.reason]})"),
    ]
    if drafting.draft is not None and drafting.reason is not None:
        facts.append(("draft", f"{drafting.draft.name} ({DRAFT_REASONS[drafting.reason]})"))
    console.facts(facts)
