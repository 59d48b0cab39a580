"""Records: JSON lines from which tables and pictures are made, without weights."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from subllm.errors import UsageError


class Record(BaseModel):
    """One line of a file of records."""

    model_config = ConfigDict(frozen=True, extra="forbid")


_R = TypeVar("_R", bound=Record)


def to_lines(records: Iterable[Record]) -> str:
    """JSON lines of records, each ending in a line feed."""
    dumped = (record.model_dump(mode="json") for record in records)
    return "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in dumped)


def parse_lines(lines: str, where: str) -> list[Any]:
    """The JSON value of every line. Raises UsageError naming the first that has none."""
    rows = []
    for number, line in enumerate(lines.splitlines(), 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise UsageError(f"{where}:{number} is not JSON ({error}); make it again") from error
    return rows


def validated(kind: type[_R], row: Any, where: str) -> _R:
    """`row` as a record of `kind`. Raises UsageError that begins with `where`."""
    try:
        return kind.model_validate(row)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise UsageError(
            f"{where}: {field + ': ' if field else ''}{first['msg'].lower()}; make it again"
        ) from error
