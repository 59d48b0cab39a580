"""TOML to a pydantic model, with errors of one line that name the file's line and the nearest
key."""

from __future__ import annotations

import difflib
import re
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from subllm.errors import UsageError

Model = TypeVar("Model", bound=BaseModel)
Location = tuple[str | int, ...]

_KEY = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_KEYS = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_TABLE = re.compile(rf"\s*(\[\[?)\s*({_KEYS})\s*\]")
_VALUE = re.compile(rf"\s*({_KEYS})\s*=")


def read_toml(text: str, model: type[Model], where: str, *, newest: int) -> Model:
    """`text` as a `model`, types as written (the text "2" is no number).

    where   name of the file for messages
    newest  the `format` that this version writes; an older or absent one is the model's matter

    Raises UsageError for text that is no TOML, a newer format, unknown keys and wrong values.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        told = str(error)
        found = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", told)
        line = int(found[1]) if found and found[1] else len(text.splitlines()) or 1
        reason = told[: found.start()] if found else told
        raise UsageError(f"{where}:{line}: not valid TOML: {reason}") from error
    except RecursionError as error:
        raise UsageError(f"{where}: nested too deeply; write it flat") from error
    lines = _lines(text)
    given = data.get("format")
    if isinstance(given, int) and given > newest:
        raise UsageError(
            f"{where}:{_line(lines, ('format',))}: format {given} is newer than this version "
            f"reads ({newest}); update subllm"
        )
    try:
        return model.model_validate(data, strict=True)
    except ValidationError as error:
        place, message = told_error(error, model)
        raise UsageError(f"{where}:{_line(lines, place)}: {message}") from error


def told_error(error: ValidationError, model: type[BaseModel]) -> tuple[Location, str]:
    """Where the first problem is, an unknown key before others, and what it is in words: `unknown
    key 'lenght'; did you mean length?`, `key 'seed': Input should be ...`."""
    problems = error.errors(include_url=False, include_context=False)
    problem = next((one for one in problems if one["type"] == "extra_forbidden"), problems[0])
    place = _keys_of(problem["loc"], model)
    name = ".".join(map(str, place))
    if problem["type"] == "extra_forbidden":
        near = nearest(str(place[-1]), _fields(model, place[:-1]))
        return place, f"unknown key {name!r}" + (f"; did you mean {near}?" if near else "")
    if problem["type"] == "missing":
        return place[:-1], f"key {name!r} is missing; add it"
    # Alternatives of one key are told together.
    told = dict.fromkeys(
        str(one["msg"]).removeprefix("Value error, ")
        for one in problems
        if _keys_of(one["loc"], model) == place
    )
    message = " or ".join(told).replace(" or Input should be ", " or ")
    if not place or problem["type"] == "value_error":
        return place, message
    given = problem["input"]
    shown = f", not {given!r}" if isinstance(given, str | int | float) else ""
    return place, f"key {name!r}: {message}{shown}"


def _keys_of(place: Location, model: type[BaseModel]) -> Location:
    """Without what pydantic adds to name one of several types."""
    here: type[BaseModel] | None = model
    for depth, part in enumerate(place):
        if isinstance(part, int):
            continue
        if here is None:
            return place[:depth]
        field = _by_key(here).get(part)
        here = _model_of(field.annotation) if field is not None else None
    return place


def _by_key(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def nearest(name: str, known: Sequence[str]) -> str | None:
    """The known name that looks most like it."""
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.5)), None)


def _fields(model: type[BaseModel], place: Location) -> list[str]:
    """The keys that a table may have."""
    here: type[BaseModel] | None = model
    for part in place:
        if isinstance(part, str):
            field = _by_key(here).get(part) if here is not None else None
            here = _model_of(field.annotation) if field is not None else None
    return list(_by_key(here)) if here is not None else []


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """The model in `X`, `X | None`, `list[X]`, `dict[str, X]`."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    return next(filter(None, map(_model_of, typing.get_args(annotation))), None)


def _lines(text: str) -> dict[Location, int]:
    """Location -> line from 1, of tables and keys that begin a line; texts of several lines are
    passed over."""
    lines: dict[Location, int] = {}
    table: Location = ()
    counts: dict[Location, int] = {}
    quote = ""
    for number, line in enumerate(text.splitlines(), 1):
        if quote:
            quote = "" if quote in line else quote
            continue
        if found := _TABLE.match(line):
            table = _parts(found[2])
            if found[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                lines.setdefault(table, number)
                table = (*table, counts[table])
            lines.setdefault(table, number)
        elif found := _VALUE.match(line):
            place = (*table, *_parts(found[1]))
            lines.setdefault(place, number)
            lines.setdefault(place[: len(table) + 1], number)
        quote = next((q for q in ('"""', "'''") if line.count(q) % 2), "")
    return lines


def _parts(keys: str) -> Location:
    return tuple(part.strip("\"'") for part in re.findall(_KEY, keys))


def _line(lines: Mapping[Location, int], place: Location) -> int:
    """Of the deepest part that has one."""
    ends = range(len(place), 0, -1)
    return next((lines[place[:end]] for end in ends if place[:end] in lines), 1)
