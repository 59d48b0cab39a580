"""Reads the shipped catalog and, on top of it, a user's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from subllm.catalog import located_yaml
from subllm.catalog.schema import BaseEntry, CalibrationSetEntry, CatalogFile
from subllm.errors import CatalogError, UnknownNameError

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
    return inside if inside.exists() else Path(__file__).parents[3] / FILE_NAME


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
        return CatalogFile.model_validate(_with_names(located.data))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        location = tuple(first["loc"])
        line = located.line(_without_tags(location, located.data))
        raise CatalogError(f"{path}:{line}: {_explain(first['type'], location, first)}") from error


def _with_names(data: Any) -> Any:
    """Gives each entry its key as `name`, where the data have the right shape."""
    if not isinstance(data, dict):
        return data
    named = dict(data)
    for section in ("bases", "calibration_sets"):
        entries = data.get(section)
        if isinstance(entries, dict):
            named[section] = {
                name: {"name": name, **entry} if isinstance(entry, dict) else entry
                for name, entry in entries.items()
            }
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


def _explain(kind: str, location: located_yaml.Location, error: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in location)
    if kind == "extra_forbidden":
        return (
            f"unknown key {location[-1]!r} (in {'.'.join(map(str, location[:-1])) or 'the file'})"
        )
    if kind == "missing":
        return f"key {location[-1]!r} is missing (in {'.'.join(map(str, location[:-1]))})"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{where}: {message[:1].lower()}{message[1:]}"
