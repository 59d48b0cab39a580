"""A recipe as TOML."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def to_toml(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Of `Recipe.sections`, or some of their keys; `parse` reads it back."""
    parts = []
    for name, keys in sections.items():
        if keys:
            lines = [f"{key} = {value(one)}" for key, one in keys.items()]
            parts.append("\n".join([f"[{name}]", *lines]))
    return "\n\n".join(parts)


def value(of: Any) -> str:
    """One value, or a table or list of them."""
    if isinstance(of, Mapping):
        return "{" + ", ".join(f"{_key(key)} = {value(one)}" for key, one in of.items()) + "}"
    if isinstance(of, (list, tuple)):
        return "[" + ", ".join(map(value, of)) + "]"
    if isinstance(of, bool):
        return "true" if of else "false"
    if isinstance(of, str):
        return json.dumps(of, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(of)


def _key(key: str) -> str:
    plain = key.replace("-", "").replace("_", "")
    return key if plain.isascii() and plain.isalnum() else json.dumps(key)
