"""A model of the store, opened: its packed tensors in place and its tokenizer.

Tensors come memory-mapped; nothing is copied or hashed on the way (that is `verify`).
"""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray

from subllm.errors import LayoutError, WeightsError
from subllm.kernels.sparsity.layout import LAYOUT_VERSION
from subllm.kernels.sparsity.packed_file import PackedReader
from subllm.kernels.sparsity.packing import PackedTensor
from subllm.kernels.sparsity.screen import Screen
from subllm.models.store.manifest import ModelManifest
from subllm.models.store.store import Store
from subllm.models.store.tokenizers import open_tokenizer
from subllm.models.text.tokenizer import Tokenizer


class ModelFiles:
    """Open packed files; a context manager. Arrays stay valid after `close`."""

    def __init__(self, store: Store, manifest: ModelManifest) -> None:
        """Raises StoreError when a blob is missing, LayoutError when one is malformed
        or packed in a newer layout."""
        if manifest.layout > LAYOUT_VERSION:
            raise LayoutError(
                f"{manifest.name} has packed layout {manifest.layout}, this subllm reads "
                f"{LAYOUT_VERSION}; update subllm or extract it again"
            )
        self.manifest = manifest
        self._store = store
        self._entries = manifest.table()
        self.own = PackedReader(store.blobs.path(manifest.blobs.own))
        try:
            self.shared = PackedReader(store.blobs.path(manifest.blobs.shared))
        except BaseException:
            self.own.close()
            raise

    def tensor(self, name: str) -> PackedTensor:
        """A packed matrix by its name in the manifest's table; WeightsError if none."""
        return self._reader(name).tensor(name)

    def screen(self, name: str) -> Screen | None:
        """The screening plane of a packed matrix, None where it has none; WeightsError for an
        unknown name."""
        return self._reader(name).screen(name)

    def vector(self, name: str) -> NDArray[np.float32]:
        """An f32 vector by its name in the manifest's table; WeightsError if none."""
        return self._reader(name).vector(name)

    def copy(self) -> None:
        """Tensors asked for from here on are of a copy in memory that is read faster, where there
        is room; see `MappedFile.copy`."""
        self.own.copy()
        self.shared.copy()

    def tokenizer(self) -> Tokenizer:
        """The tokenizer, see `open_tokenizer`; CorruptError when its bytes changed."""
        return open_tokenizer(self._store, self.manifest)

    def _reader(self, name: str) -> PackedReader:
        entry = self._entries.get(name)
        if entry is None:
            raise WeightsError(
                f"{self.manifest.name} has no tensor {name!r}; run 'subllm verify', then extract "
                "it again"
            )
        return self.own if entry.blob == "own" else self.shared

    def close(self) -> None:
        self.own.close()
        self.shared.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_model(store: Store, name: str) -> ModelFiles:
    """Open the model of that name, or of that digest.

    Raises UnknownNameError, UsageError (a base), StoreError (a blob is missing),
    StoreVersionError or LayoutError (made by another version).
    """
    return ModelFiles(store, store.model(name))
