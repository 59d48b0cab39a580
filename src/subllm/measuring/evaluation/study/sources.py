"""Where data is from, as records may say it: no directories of this machine."""

from __future__ import annotations

_LOCAL = ("path:", "jsonl:")


def public(source: str) -> str:
    """Where data is from without directories of this machine: `path:/home/me/app` is
    `path:app`. Parts of a mix likewise."""
    if source.startswith("mix:"):
        parts = source.removeprefix("mix:").split(",")
        return "mix:" + ",".join(map(public, parts))
    for kind in _LOCAL:
        if source.startswith(kind):
            return kind + source.removeprefix(kind).rstrip("/").rpartition("/")[2]
    return source if source.startswith("hub:") else source.rpartition("/")[2]
