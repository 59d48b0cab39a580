"""Files of text that were made, and what they hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from subllm.errors import TableError, UsageError
from subllm.making.textmaking.raw_answers import SUFFIX

_ROWS, _MADE = ".jsonl", ".made.json"
# Of one run, not of the file.
_OF_A_RUN = ("path", "added", "seconds", "interrupted")


@dataclass(frozen=True)
class Made:
    """What a file of text holds.

    by             the model that wrote last
    texts, tokens  by form; tokens are those that a model wrote
    rejected       answers by why they are not in it
    answers        all that there are, of `written` tokens; `added` of these came in the last run,
                   which took `seconds` and may have been interrupted
    """

    path: Path
    language: str
    by: str
    texts: dict[str, int]
    tokens: dict[str, int]
    rejected: dict[str, int]
    answers: int
    written: int
    added: int = 0
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def size(self) -> int:
        """Of the rows, in bytes."""
        return self.path.stat().st_size if self.path.exists() else 0

    def record(self) -> bytes:
        """As `read` finds it beside the rows."""
        kept = {name: value for name, value in asdict(self).items() if name not in _OF_A_RUN}
        return json.dumps(kept, indent=1).encode()

    def document(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "path": str(self.path), "bytes": self.size}


def data_directory(home: Path) -> Path:
    """Where texts lie that have no other place."""
    return home / "data"


def answers_path(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(_ROWS) + SUFFIX)


def made_path(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(_ROWS) + _MADE)


def read(path: Path) -> Made:
    """Raises UsageError for a file that was not made here, TableError for a damaged record."""
    record = made_path(path)
    try:
        return Made(path=path, **json.loads(record.read_bytes()))
    except FileNotFoundError as error:
        raise UsageError(
            f"{path} was not made by 'subllm data make': {record.name} is not beside it"
        ) from error
    except (OSError, ValueError, TypeError) as error:
        raise TableError(
            f"{record} cannot be read ({error}); 'subllm data make' writes it anew"
        ) from error


def all_made(home: Path) -> Iterator[Path]:
    """The texts that were made without --out, by name."""
    yield from sorted(
        path for path in data_directory(home).glob(f"*{_ROWS}") if made_path(path).exists()
    )
