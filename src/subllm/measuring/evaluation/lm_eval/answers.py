"""What answering took, and what a model answered before: a file of answers by the digest of
their question.

A question names the tokens, the parameters and the model, by a text that says all that
decides its numbers: the digest of its manifest, the backend, the types that it computes in.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from subllm.errors import StoreError
from subllm.models.store.files import disk_errors
from subllm.models.store.manifest import canonical_json

FORMAT = 1
"""Part of every digest: raised when answers come to mean something else."""


@dataclass
class Effort:
    """scored     tokens run to score continuations
    generated  tokens generated
    cached     answers that were there before
    truncated  prompts cut on their left, because the context is too short for them
    """

    scored: int = 0
    generated: int = 0
    cached: int = 0
    truncated: int = 0


class AnswerCache:
    """Every answer is on disk as soon as it is there, so an interrupted run goes on where it
    was. For one thread; several processes may use one file."""

    def __init__(self, path: Path, model: str) -> None:
        """Made where it is not there. Raises StoreError when `path` is no such file."""
        self._path = path
        self._model = model
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._errors():
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=60)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS answers (digest BLOB PRIMARY KEY, answer TEXT) "
                "WITHOUT ROWID"
            )

    def get(self, question: Mapping[str, Any]) -> Any:
        """The answer, of JSON's types; None when there is none yet."""
        with self._errors():
            row = self._connection.execute(
                "SELECT answer FROM answers WHERE digest = ?", (self._digest(question),)
            ).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, question: Mapping[str, Any], answer: Any) -> None:
        """`answer` is of JSON's types and not None."""
        with self._errors():
            self._connection.execute(
                "INSERT OR REPLACE INTO answers VALUES (?, ?)",
                (self._digest(question), json.dumps(answer)),
            )

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _digest(self, question: Mapping[str, Any]) -> bytes:
        whole = {"format": FORMAT, "model": self._model, "question": question}
        return hashlib.sha256(canonical_json(whole)).digest()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, ValueError) as error:
            raise StoreError(
                f"{self._path} is no file of answers that can be used ({error}); delete it"
            ) from error
