"""What is known of a client: its settings for a server, their format and their file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from subllm.cli.editors.endpoint import Endpoint

Settings = Mapping[str, Any]


class Format(Protocol):
    """How settings are written. `merge` changes the text as little as it can and gives it back
    with `settings` in it, and with those of `gentle` that it did not have; comments and all
    other settings stay. It raises UsageError for a text that it cannot change so."""

    def render(self, settings: Settings) -> str: ...

    def merge(self, text: str, settings: Settings, gentle: Settings) -> str: ...


def _none(_: Endpoint) -> Settings:
    return {}


@dataclass(frozen=True)
class Tool:
    """A client.

    settings  what it needs for a server
    gentle    what suits it, written only where nothing is set
    file      where it looks for them
    notes     what is left to do by hand, or should be known
    """

    name: str
    title: str
    format: Format
    file: Callable[[], Path]
    settings: Callable[[Endpoint], Settings]
    gentle: Callable[[Endpoint], Settings] = _none
    notes: Callable[[Endpoint], list[str]] = lambda _: []

    def text(self, endpoint: Endpoint) -> str:
        """All of it, as a file of its own would hold it."""
        return self.format.render(merged(self.gentle(endpoint), self.settings(endpoint)))


def merged(old: Any, new: Any) -> Any:
    """`new` over `old`: objects by key, lists of objects with a `name` by that, else `new`."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        both = dict(old)
        for key, value in new.items():
            both[key] = merged(old[key], value) if key in old else value
        return both
    if _named(old) and _named(new):
        kept = {item["name"]: item for item in old} | {item["name"]: item for item in new}
        return list(kept.values())
    return new


def _named(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, Mapping) and "name" in v for v in value)
