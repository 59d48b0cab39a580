"""Reads the shipped catalog and, on top of it, a user's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from subllm.errors import CatalogError, UnknownNameError
from subllm.models.catalog import located_yaml
from subllm.models.catalog.schema import BaseEntry, CalibrationSetEntry, CatalogFile

FILE_NAME = "models_catalog.yaml"


class Catalog:
    """Bases and calibration sets by name."""

    def __init__(
        self,
        bases: Mapping[str, BaseEntry],
        calibration_sets: Mapping[str, CalibrationSetEntry],
    ) -> None:
        self.bases = dict(bases)
        self.calibration_sets = dict(calibration_sets)

    def base(self, name: str) -> BaseEntry:
        """Raises UnknownNameError with the nearest names."""
        if name not in self.bases:
            hint = "a Hugging Face repository is given as hf:org/name, a file or directory by path"
            raise UnknownNameError("base", name, self.bases, hint)
        return self.bases[name]

    def calibration_set(self, name: str) -> CalibrationSetEntry:
        """Raises UnknownNameError with the nearest names."""
        if name not in self.calibration_sets:
            raise UnknownNameError("calibration set", name, self.calibration_sets)
        return self.calibration_sets[name]


def shipped_catalog() -> Path:
    """Inside the package when installed, at the project's top when run from source."""
    inside = Path(__file__).with_name(FILE_NAME)
    return inside if inside.exists() else Path(__file__).parents[4] / FILE_NAME


def load_catalog(user_file: Path | None = None) -> Catalog:
    """The shipped catalog; entries of `user_file` are added or replace those of its names.

    Raises CatalogError naming file and line.
    """
    files = [read_catalog(shipped_catalog())]
    if user_file is not None:
        files.append(read_catalog(user_file))
    bases: dict[str, BaseEntry] = {}
    sets: dict[str, CalibrationSetEntry] = {}
    for file in files:
        bases |= file.bases
        sets |= file.calibration_sets
    return Catalog(bases, sets)


def read_catalog(path: Path) -> CatalogFile:
    """One catalog file, validated. Raises CatalogError naming file and line."""
    located = located_yaml.load(path)
    try:
        return CatalogFile.model_validate(_with_names(located, path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        location = _without_tags(tuple(first["loc"]), located.data)
        line = located.line(location)
        raise CatalogError(f"{path}:{line}: {_explain(location, first)}") from error


def _with_names(located: located_yaml.LocatedYaml, path: Path) -> Any:
    """Gives each entry its key as `name`, where the data have the right shape."""
    if not isinstance(located.data, dict):
        return located.data
    named = dict(located.data)
    for section in ("bases", "calibration_sets"):
        entries = named.get(section)
        if not isinstance(entries, dict):
            continue
        named[section] = {}
        for name, entry in entries.items():
            if isinstance(entry, dict) and "name" in entry:
                line = located.line((section, name, "name"))
                raise CatalogError(f"{path}:{line}: unknown key 'name' (in {section}.{name})")
            named[section][name] = entry
            if isinstance(entry, dict):
                named[section][name] = {"name": name, **entry}
    return named


def _without_tags(location: located_yaml.Location, data: Any) -> located_yaml.Location:
    """Pydantic puts the chosen kind of source into the location; the file has no such level."""
    kept: list[str | int] = []
    for part in location:
        if isinstance(data, dict) and part not in data and data.get("type") == part:
            continue
        kept.append(part)
        if isinstance(data, dict):
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int):
            data = data[part]
    return tuple(kept)


def _explain(location: located_yaml.Location, error: Mapping[str, Any]) -> str:
    kind = error["type"]
    inside = ".".join(map(str, location[:-1])) or "the file"
    if kind == "extra_forbidden":
        return f"unknown key {location[-1]!r} (in {inside})"
    if kind == "missing":
        return f"key {location[-1]!r} is missing (in {inside})"
    if kind == "string_pattern_mismatch" and len(location) == 3 and location[-1] == "name":
        form = "family:size" if location[0] == "bases" else "a name"
        return f"{location[1]!r} should be {form} in lower-case letters, digits, '.', '_' and '-'"
    where = ".".join(map(str, location)) or "the file"
    message = _MESSAGES.get(kind) or str(error["msg"]).removeprefix("Value error, ")
    return f"{where}: {message[:1].lower()}{message[1:]}"


# In the words of YAML, where pydantic speaks of Python.
_MESSAGES = {
    "model_type": "should be a mapping of keys to values",
    "dict_type": "should be a mapping of keys to values",
    "tuple_type": "should be a list",
    "union_tag_not_found": "key 'type' is missing; it is hub or pypi",
    "union_tag_invalid": "'type' should be hub or pypi",
}
