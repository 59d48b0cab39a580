"""The tokenizer of a stored model."""

from __future__ import annotations

from subllm.store.manifest import ModelManifest
from subllm.store.store import Store
from subllm.text.tokenizer import Tokenizer


def open_tokenizer(store: Store, manifest: ModelManifest) -> Tokenizer:
    """Read anew on every call, which takes a moment: keep it.

    Raises StoreError when the blob is missing, CorruptError when its bytes changed.
    """
    return Tokenizer.from_bundle(store.blobs.read_bytes(manifest.blobs.tokenizer))
