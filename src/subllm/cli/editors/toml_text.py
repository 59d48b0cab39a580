"""TOML tables of plain values, changed in place."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from subllm.cli.editors.tool import Settings, merged
from subllm.errors import UsageError


def render(settings: Settings) -> str:
    return "\n".join(_table(name, values) for name, values in settings.items())


def merge(text: str, settings: Settings, gentle: Settings) -> str:
    old = _parsed(text)
    wanted = merged(merged(gentle, old), settings)
    for name, values in merged(gentle, settings).items():
        for key in values:
            if old.get(name, {}).get(key) != wanted[name][key]:
                text = _put(text, name, key, wanted[name][key])
    try:
        if tomllib.loads(text) == wanted:
            return text
    except tomllib.TOMLDecodeError:
        pass
    raise UsageError("it cannot be changed safely; put the printed settings in by hand")


def _parsed(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"it is no TOML ({error}); correct it or give another --file") from error


def _table(name: str, values: Mapping[str, Any]) -> str:
    lines = [f"{key} = {_value(value)}" for key, value in values.items()]
    return "\n".join([f"[{name}]", *lines, ""])


def _value(value: Any) -> str:
    """TOML's basic strings, numbers and truth values are those of JSON."""
    return json.dumps(value, ensure_ascii=False)


def _put(text: str, table: str, key: str, value: Any) -> str:
    line = f"{key} = {_value(value)}"
    header = re.search(rf"^[ \t]*\[{re.escape(table)}\][^\n]*$", text, re.MULTILINE)
    if header is None:
        gap = "" if not text else "\n" if text.endswith("\n") else "\n\n"
        return f"{text}{gap}[{table}]\n{line}\n"
    next_header = re.search(r"^[ \t]*\[", text[header.end() :], re.MULTILINE)
    end = len(text) if next_header is None else header.end() + next_header.start()
    body = text[header.end() : end]
    # A comment behind the value stays.
    given = rf"^[ \t]*{re.escape(key)}[ \t]*=[ \t]*(\"[^\"\n]*\"|[^#\n]*?)(?=[ \t]*(#|$))"
    old = re.search(given, body, re.MULTILINE)
    body = f"\n{line}{body}" if old is None else body[: old.start()] + line + body[old.end() :]
    return text[: header.end()] + body + text[end:]
