"""`--recipe` of `extract` and `recover`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from subllm.errors import UsageError

if TYPE_CHECKING:
    from subllm.making.extraction.recipes.read import Asked

RecipeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--recipe",
        metavar="NAME|FILE",
        help="default, fast, small, editor, a TOML file of your own ('subllm recipe show default' "
        "teaches its keys), or of:MODEL, as that one was made.",
    ),
]


def asked_for(
    given: Sequence[str] | None, beside: Mapping[str, Mapping[str, Any]] | None = None
) -> Asked:
    """The recipe of `--recipe`, the default without; `beside`: keys that other options say, which
    hold. Raises UsageError for more than one, and as `recipes.read.find`."""
    from subllm.making.extraction.recipes.read import built_in, find
    from subllm.making.extraction.recipes.sections import merged

    if given and len(given) > 1:
        raise UsageError("--recipe is given twice; one recipe says it all")
    name = given[0] if given else "default"
    asked = _of_model(name[3:]) if name.startswith("of:") else find(name) if name else None
    if asked is None:
        asked = built_in("default")
    if not beside:
        return asked
    return replace(asked, recipe=asked.recipe.but(beside), said=merged(asked.said, beside))


def _of_model(name: str) -> Asked:
    """Raises UsageError for a model of which that is not known, and UnknownNameError."""
    from subllm.cli.context import open_context
    from subllm.making.extraction.made import recipe_of

    store = open_context().store
    store.model(name)
    record = store.run_record(store.resolve(name))
    if record is None or record.made is None or record.made.arguments[0] != "extract":
        raise UsageError(f"it is not known by which recipe {name} was made; name another one")
    return recipe_of(record.made)
