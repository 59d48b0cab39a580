"""Which rows they were: one digest for a table, whatever kind of file it came in."""

from __future__ import annotations

import hashlib

from subllm.errors import TableError
from subllm.models.store.manifest import canonical_json
from subllm.models.tables.files import Row


class RowsDigest:
    """sha256 over rows as lines of canonical JSON, in their order: the same for a file, its
    compressed form and a table of the same rows."""

    def __init__(self, source: str) -> None:
        """source: where the rows are from, for errors."""
        self._source = source
        self._hash = hashlib.sha256()

    def add(self, row: Row) -> None:
        """Raises TableError for a value that is no JSON."""
        try:
            self._hash.update(canonical_json(row) + b"\n")
        except (ValueError, TypeError) as error:
            raise TableError(f"{self._source} has a value that is no JSON ({error})") from error

    def __str__(self) -> str:
        """`sha256-<hex>` of the rows so far."""
        return "sha256-" + self._hash.hexdigest()
