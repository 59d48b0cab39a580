"""YAML with the line of every key, so that an error can point at it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from subllm.errors import CatalogError

Location = tuple[str | int, ...]


class LocatedYaml:
    """`data` as plain Python; `line(location)` is where a key or item starts, from 1."""

    def __init__(self, data: Any, lines: dict[Location, int]) -> None:
        self.data = data
        self._lines = lines

    def line(self, location: Location) -> int:
        """The line of the deepest known part of `location`."""
        for end in range(len(location), -1, -1):
            if location[:end] in self._lines:
                return self._lines[location[:end]]
        return 1


def load(path: Path) -> LocatedYaml:
    """Raises CatalogError for unreadable files, bad YAML and keys given twice."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise CatalogError(f"{path}: cannot be read ({reason}); check the path") from error
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return LocatedYaml({}, {(): 1})
            lines: dict[Location, int] = {}
            data = _build(loader, node, (), lines, path)
            return LocatedYaml(data, lines)
        finally:
            loader.dispose()
    except RecursionError as error:
        raise CatalogError(f"{path}: nested too deeply; write it flat") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise CatalogError(f"{path}:{line}: not valid YAML: {problem}") from error


def _build(
    loader: yaml.SafeLoader,
    node: yaml.Node,
    location: Location,
    lines: dict[Location, int],
    path: Path,
) -> Any:
    lines.setdefault(location, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        result: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise CatalogError(f"{path}:{line}: merge keys (<<) are not read; write them out")
            key = loader.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise CatalogError(f"{path}:{line}: key {key!r} is not text; quote it")
            if key in result:
                raise CatalogError(f"{path}:{line}: key {key!r} is given twice; remove one")
            lines[(*location, key)] = line
            result[key] = _build(loader, value_node, (*location, key), lines, path)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [
            _build(loader, item, (*location, index), lines, path)
            for index, item in enumerate(node.value)
        ]
    return loader.construct_object(node, deep=True)
