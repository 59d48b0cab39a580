"""Raw answers: every task's text as the base model gave it, one JSON line each.

A directory of files that grow as answers end, one file per worker; a task that is in any
of them is not asked again, so a run may be stopped at any time and goes on where it was.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tasks import LANGUAGES, Task, tasks


@dataclass(frozen=True)
class Sampling:
    """temperature and top_p of every draw; `max_new` tokens at most per text."""

    temperature: float = 0.8
    top_p: float = 0.95
    max_new: int = 448
    seed: int = 0


def rotation(counts: Mapping[str, int], seed: int) -> list[tuple[int, Task]]:
    """Numbered tasks in an order in which the languages near their counts together. A
    task's number does not depend on the counts; it seeds the task's draws."""
    placed = []
    for column, language in enumerate(LANGUAGES):
        for row, task in enumerate(tasks(language, counts[language], seed)):
            place = (row + 0.5) / counts[language]
            placed.append((place, row * len(LANGUAGES) + column, task))
    return [(number, task) for _, number, task in sorted(placed, key=lambda entry: entry[:2])]


def read_answers(directory: Path) -> dict[str, dict]:
    """Raw answers by task id. A line that a killed run left unfinished is skipped."""
    found: dict[str, dict] = {}
    for path in sorted(directory.glob("*.jsonl")):
        for line in path.read_text().split("\n")[:-1]:
            try:
                answer = json.loads(line)
                found[answer["id"]] = answer
            except (ValueError, KeyError):
                print(f"{path}: skipping an unfinished line", file=sys.stderr)
    return found


def end_line(path: Path) -> None:
    """A killed run may have left a line without its end."""
    if path.exists() and not path.read_bytes().endswith(b"\n"):
        with path.open("a") as file:
            file.write("\n")
