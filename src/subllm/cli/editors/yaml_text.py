"""YAML mappings of plain values and of lists of named objects, changed in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from subllm.cli.editors.tool import Settings, merged
from subllm.errors import UsageError

_UNSAFE = "it cannot be changed safely; put the printed settings in by hand"


def render(settings: Settings) -> str:
    return yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)


def merge(text: str, settings: Settings, gentle: Settings) -> str:
    old, root = _parsed(text)
    wanted = merged(merged(gentle, old), settings)
    edits: list[tuple[int, int, str]] = []
    new: dict[str, Any] = {}
    nodes = {} if root is None else {key.value: value for key, value in root.value}
    for key, value in merged(gentle, settings).items():
        value = wanted[key] if key not in settings else value
        if key not in nodes:
            new[key] = value
        elif isinstance(value, list):
            edits += _list_edits(text, nodes[key], value)
        elif old[key] != value:
            node = nodes[key]
            edits.append((node.start_mark.index, node.end_mark.index, _scalar(value)))
    changed = text
    for start, end, piece in sorted(edits, reverse=True):
        changed = changed[:start] + piece + changed[end:]
    if new:
        gap = "" if not changed or changed.endswith("\n") else "\n"
        changed += gap + render(new)
    try:
        if yaml.safe_load(changed) == wanted:
            return changed
    except yaml.YAMLError:
        pass
    raise UsageError(_UNSAFE)


def _parsed(text: str) -> tuple[dict[str, Any], Any]:
    try:
        value = yaml.safe_load(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else "it"
        raise UsageError(f"{where} is no YAML; correct it or give another --file") from error
    if value is None:
        return {}, None
    if not isinstance(value, dict) or getattr(root, "flow_style", False):
        raise UsageError(_UNSAFE)
    return value, root


def _list_edits(text: str, node: Any, items: list[Mapping[str, Any]]) -> list[tuple[int, int, str]]:
    """Items that have the name of one of `items` replaced, the others appended."""
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        # `models:` and `models: []`
        start, end = node.start_mark.index, node.end_mark.index
        return [(start, end, "\n" + _items(items, "  ").rstrip("\n"))]
    if node.flow_style:
        raise UsageError(_UNSAFE)
    column = node.start_mark.column
    indent = " " * column
    places = {_name(item): item for item in node.value}
    edits, new = [], []
    for item in items:
        place = places.get(item["name"])
        if place is None:
            new.append(item)
        else:
            body = _items([item], indent)[column + 2 :].rstrip("\n")
            edits.append((place.start_mark.index, _end(place), body))
    if new:
        last = _end(node.value[-1])
        line = text.find("\n", last)
        at = len(text) if line < 0 else line
        edits.append((at, at, "\n" + _items(new, indent).rstrip("\n")))
    return edits


def _items(items: list[Mapping[str, Any]], indent: str) -> str:
    text = yaml.safe_dump([dict(i) for i in items], sort_keys=False, allow_unicode=True)
    return "".join(f"{indent}{line}" for line in text.splitlines(keepends=True))


def _name(node: Any) -> Any:
    """Of a mapping; None of anything else."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == "name":
                return value.value
    return None


def _end(node: Any) -> int:
    """Where what belongs to `node` ends: a block's own mark is behind the comments that follow."""
    if isinstance(node, yaml.CollectionNode) and node.value and not node.flow_style:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


def _scalar(value: Any) -> str:
    return yaml.safe_dump(value, allow_unicode=True).splitlines()[0]
