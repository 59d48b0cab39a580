"""Recipes by name or file, and what is wrong with one, in a line."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from subllm.errors import UnknownNameError, UsageError
from subllm.making.extraction.recipes.sections import FORMAT, Recipe

BUILT_IN = {
    "default": "what 'subllm extract' does where nobody says",
    "fast": "two minutes, no recovery",
    "small": "the fewest bytes that are still sensible",
    "editor": "what belongs at a cursor is learned from a larger base",
}
_LARGEST = 1 << 20  # bytes of a file
_KEY = re.compile(r"""\s*["']?([\w-]+)["']?\s*(?:=|\.\s*["']?([\w-]+)["']?\s*=)""")
_SECTION = re.compile(r"""\s*\[\s*["']?([\w-]+)["']?\s*\]""")


@dataclass(frozen=True)
class Asked:
    """A recipe as it was asked for.

    name    of a built-in one, "" for a file
    said    what that file, or options beside a built-in one, say; all else is subllm's choice
    recipe  the whole of it
    """

    name: str
    recipe: Recipe
    said: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def built_in_text(name: str) -> str:
    """The file of a built-in recipe. Raises UnknownNameError."""
    if name not in BUILT_IN:
        raise UnknownNameError("recipe", name, BUILT_IN, "'subllm recipe list' shows them")
    return files(__package__).joinpath(f"{name}.toml").read_text(encoding="utf-8")


def built_in(name: str) -> Asked:
    """Raises UnknownNameError."""
    said = parse(built_in_text(name), f"{name}.toml")
    # The file of the default says what holds anyway, for whoever reads it.
    return Asked(name, Recipe().but({} if name == "default" else said))


def find(text: str) -> Asked:
    """As `--recipe` takes it: a built-in one or a file. Raises UsageError and its kin for a file
    that is missing or says what no recipe may."""
    if text in BUILT_IN:
        return built_in(text)
    path = Path(text).expanduser()
    if not path.exists() and "/" not in text and path.suffix != ".toml":
        raise UnknownNameError(
            "recipe", text, BUILT_IN, f"take {', '.join(BUILT_IN)} or a file, such as ./mine.toml"
        )
    try:
        if path.stat().st_size > _LARGEST:
            raise UsageError(f"{text} is larger than a recipe can be; name a TOML file")
        content = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{text} is no text in UTF-8, so it is no recipe") from error
    except OSError as error:
        raise UsageError(f"recipe {text} cannot be read ({error.strerror})") from error
    said = parse(content, path.name)
    return Asked("", Recipe().but(said), said)


def parse(text: str, name: str) -> dict[str, dict[str, Any]]:
    """The sections of a file called `name`, checked. Raises UsageError: file, line, what is wrong,
    and the nearest key where one is unknown."""
    try:
        said = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(_syntax(text, name, str(error))) from error
    number = said.pop("format", FORMAT)
    if isinstance(number, int) and number is not True and number > FORMAT:
        raise UsageError(
            f"{name}, line {_line(text, ('format',))}: the recipe is of format {number}, made for "
            f"a newer subllm; this one reads format {FORMAT}: update subllm"
        )
    try:
        # Alone, so that what it says together with the default is no matter of a line.
        Recipe.model_validate({**said, "format": number})
    except ValidationError as error:
        raise UsageError(_wrong(text, name, error)) from error
    return said


def _syntax(text: str, name: str, said: str) -> str:
    """Of what tomllib says, which ends in "(at line 1, column 2)" or "(at end of document)"."""
    what, _, place = said.rpartition(" (at ")
    found = re.match(r"line (\d+)", place)
    line = int(found[1]) if found else max(1, len(text.splitlines()))
    what = " ".join(what.split())
    return f"{name}, line {line}: {what[:1].lower()}{what[1:]}; a recipe is a TOML file"


def _wrong(text: str, name: str, error: ValidationError) -> str:
    """Of the first thing that is wrong; alternatives of one key are one thing."""
    errors = error.errors()
    unknown = next((one for one in errors if one["type"] == "extra_forbidden"), None)
    first = unknown or errors[0]
    place = tuple(str(part) for part in first["loc"][:2])
    where = f"{name}, line {_line(text, place)}"
    if unknown is not None:
        return f"{where}: {_unknown(place)}"
    messages = dict.fromkeys(
        one["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        for one in errors
        if tuple(str(part) for part in one["loc"][:2]) == place
    )
    what = " or ".join(messages)
    if first["type"] == "value_error":
        return f"{where}: {what}"
    section = f" in [{place[0]}]" if len(place) > 1 else ""
    return f"{where}: {place[-1]}{section} is to be {what}, not {first['input']!r}"


def _unknown(place: tuple[str, ...]) -> str:
    if len(place) == 1:
        return f"unknown section or key {place[0]!r}{_nearest(place[0], Recipe.model_fields)}"
    model = Recipe.model_fields[place[0]].annotation
    assert model is not None
    keys = [field.alias or key for key, field in model.model_fields.items()]
    return f"unknown key {place[1]!r} in [{place[0]}]{_nearest(place[1], keys)}"


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    return "; 'subllm recipe show default' teaches each key"


def _line(text: str, place: tuple[str, ...]) -> int:
    """Where the key stands, counted from 1; where its section begins if it cannot be seen."""
    section, begin = "", 1
    for number, line in enumerate(text.splitlines(), 1):
        if header := _SECTION.match(line):
            section = header[1]
            if section == place[0]:
                begin = number
                if len(place) == 1:
                    return number
        elif key := _KEY.match(line):
            seen = tuple(filter(None, (section, key[1], key[2])))
            if seen == place:
                return number
            if seen[0] == place[0] and not section:
                begin = number
    return begin
