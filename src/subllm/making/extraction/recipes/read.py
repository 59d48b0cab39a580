"""Recipes by name or file, and what is wrong with one, in a line."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from subllm.errors import UnknownNameError, UsageError
from subllm.located_toml import read_toml
from subllm.making.extraction.recipes.sections import FORMAT, Recipe

BUILT_IN = {
    "default": "what 'subllm extract' does where nobody says",
    "fast": "two minutes, no recovery",
    "small": "the fewest bytes that are still sensible",
    "editor": "what belongs at a cursor is learned from a larger base",
}
_LARGEST = 1 << 20  # bytes of a file


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
    # Alone, so that what it says together with the default is no matter of a line.
    read_toml(text, Recipe, name, newest=FORMAT)
    said = tomllib.loads(text)
    said.pop("format", None)
    return said
