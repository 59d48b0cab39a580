"""Options that belong together as one object: a dataclass whose fields are options."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from inspect import Parameter
from typing import Any, get_type_hints


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """`command` for typer: in place of each parameter that is a dataclass, its fields.

    A field is declared as an option of a command is, `k: Annotated[str, typer.Option(...)] =
    "1"`; the command gets the object made of them.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Any]] = {}
    options: list[Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        kind = hints[parameter.name]
        if not is_dataclass(kind):
            options.append(_option(parameter.name, kind, parameter.default))
            continue
        assert isinstance(kind, type)
        groups[parameter.name] = kind
        declared = get_type_hints(kind, include_extras=True)
        options += [_option(f.name, declared[f.name], f.default) for f in fields(kind)]

    @functools.wraps(command)
    def called(**given: Any) -> None:
        made = {
            name: kind(**{field.name: given.pop(field.name) for field in fields(kind)})
            for name, kind in groups.items()
        }
        command(**given, **made)

    called.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    called.__annotations__ = {option.name: option.annotation for option in options}
    return called


def _option(name: str, annotation: Any, default: Any) -> Parameter:
    required = default is Parameter.empty or default is MISSING
    return Parameter(
        name,
        Parameter.KEYWORD_ONLY,
        annotation=annotation,
        default=Parameter.empty if required else default,
    )
