"""`--set KEY=VALUE`: settings that are rarely used, one option for all of them."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pydantic import BaseModel

    Model = TypeVar("Model", bound=BaseModel)


def apply_set(
    model: type[Model], texts: Sequence[str], below: Mapping[str, Any] | None = None
) -> Model:
    """A `model` of `below` with each KEY=VALUE of `texts` in its place. Of a key whose value is a
    list, several add up. Raises UsageError for unknown keys and wrong values."""
    from pydantic import ValidationError

    from subllm.errors import UsageError
    from subllm.located_toml import nearest, told_error

    fields = model.model_fields
    given: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip().replace("-", "_")
        if not equals:
            raise UsageError(f"--set {text!r} has no value; write KEY=VALUE")
        if key not in fields:
            near = nearest(key, list(fields))
            hint = f"did you mean {near}?" if near else f"known are {', '.join(fields)}"
            raise UsageError(f"--set: unknown key {key!r}; {hint}")
        if _is_list(fields[key].annotation):
            given.setdefault(key, []).append(value)
        else:
            given[key] = value
    try:
        return model.model_validate({**(below or {}), **given})
    except ValidationError as error:
        place, message = told_error(error, model)
        where = "--set" if place and place[0] in given else "--" + str(place[0] if place else "set")
        raise UsageError(f"{where}: {message}") from error


def _is_list(annotation: Any) -> bool:
    if typing.get_origin(annotation) is list:
        return True
    return any(_is_list(part) for part in typing.get_args(annotation))
