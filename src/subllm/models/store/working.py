"""Who works in the store just now, as the holders of its locks tell."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import psutil

from subllm.models.store.workspace import Workspace

_HOLDER = re.compile(r"key-(?P<key>.*)-[0-9a-f]{16}\.holder")


@dataclass(frozen=True)
class Work:
    """key      what is worked on, as `workspace.slug` writes it
    blocks   of a model that is being extracted, those done
    command  subllm's command line, "" of another program's work"""

    key: str
    pid: int
    blocks: int = 0
    command: str = ""


def working(workspace: Workspace) -> list[Work]:
    """Live holders of locks, by key. Nothing is locked to find out."""
    found = []
    for path in sorted(workspace.locks.glob("key-*.holder")):
        name = _HOLDER.fullmatch(path.name)
        try:
            pid = int(json.loads(path.read_text())["pid"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if name and psutil.pid_exists(pid):
            packed = (workspace.partials / path.stem).glob("block-*.packed")
            found.append(Work(name["key"], pid, len(list(packed)), _command(pid)))
    return found


def _command(pid: int) -> str:
    try:
        words = psutil.Process(pid).cmdline()
    except psutil.Error:
        return ""
    for number, word in enumerate(words[:4]):
        if word.rpartition("/")[2] == "subllm":
            return " ".join(["subllm", *words[number + 1 :]])
    return ""
