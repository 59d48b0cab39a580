"""`subllm cp`: a second name for a model."""

from __future__ import annotations

from typing import Annotated

import typer

from subllm.cli import console
from subllm.cli.context import complete_sub_model, open_context

EXAMPLES = """
subllm cp qwen2.5-coder:0.5b-python qwen2.5-coder:0.5b-python-before
subllm cp qwen2.5-coder:0.5b-python before      the tag alone says as much
"""


def command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SRC", help="A model of the store.", autocompletion=complete_sub_model
        ),
    ],
    target: Annotated[
        str, typer.Argument(metavar="DST", help="Its second name, or the tag of that name.")
    ],
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the name from the model that has it.")
    ] = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON document.")
    ] = False,
) -> None:
    """Give a model a second name, which stays when the first moves on.

    Nothing is copied but a few kilobytes: both names share their bytes. The names of one model
    differ in their tag, since editors and routing read the rest of a name: what is for Python
    cannot be called Java. Keep a model so before 'subllm recover' or 'extract' replaces it.
    """
    from subllm.errors import UsageError
    from subllm.models.store.copy import copy_model
    from subllm.models.store.names import base_name, kind_of, model_name

    store = open_context().store
    store.resolve(source)
    if kind_of(source) == "base":
        raise UsageError(f"{source} is a base, to which its models refer; name one of them")
    model = store.model(source)
    if ":" not in target:
        target = model_name(base_name(source), model.language, target)
    before = store.names().get(target)
    if before is not None and not replace:
        raise UsageError(f"{target} is a model already; choose another name, or say --replace")
    digest = copy_model(store, source, target)
    if json_output:
        console.emit_json({"name": target, "source": source, "digest": digest, "before": before})
        return
    console.result(f"{target} is what {source} is")
