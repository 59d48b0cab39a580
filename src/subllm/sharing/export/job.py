"""What is exported, and the files that a format makes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from subllm.models.arch.spec import ArchSpec
from subllm.models.store.manifest import ModelManifest
from subllm.models.text.tokenizer import Tokenizer
from subllm.sharing.export.weights import StoredWeights

OnBytes = Callable[[int], None]


@dataclass(frozen=True)
class Piece:
    """One file of an export.

    size   bytes, as far as they are known before
    write  makes the file and tells the bytes of each piece that it wrote
    """

    name: str
    size: int
    write: Callable[[Path, OnBytes], None]


@dataclass(frozen=True)
class ExportJob:
    """type      of weights, as the format names them; see `formats`
    bundle    the tokenizer's blob
    tensors   how many were written in which type; notes  what the reader should know
    """

    manifest: ModelManifest
    weights: StoredWeights
    tokenizer: Tokenizer
    bundle: bytes
    type: str
    tensors: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @property
    def spec(self) -> ArchSpec:
        return self.weights.spec

    def count(self, kind: str, many: int = 1) -> None:
        self.tensors[kind] += many

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """Tokens that end a text as subllm serves it, the main one first."""
        stops = map(self.tokenizer.id_of, self.manifest.prompt.stop_tokens)
        ids = [*self.tokenizer.eos_ids, *(i for i in stops if i is not None)]
        return tuple(dict.fromkeys(ids))


def text_piece(name: str, data: bytes) -> Piece:
    """A file that is in memory."""

    def write(path: Path, on_bytes: OnBytes) -> None:
        path.write_bytes(data)
        on_bytes(len(data))

    return Piece(name, len(data), write)
