"""The tokenizer of a stored model, once in a process."""

from __future__ import annotations

import threading
from weakref import WeakValueDictionary

from subllm.store.manifest import ModelManifest
from subllm.store.store import Store
from subllm.text.tokenizer import Tokenizer

# By digest of the blob, which says all: whose store it was does not matter.
_open: WeakValueDictionary[str, Tokenizer] = WeakValueDictionary()
_lock = threading.Lock()


def open_tokenizer(store: Store, manifest: ModelManifest) -> Tokenizer:
    """The same object while anyone holds it: a vocabulary takes time to read and tens of
    megabytes, and all sub-models of a base share it.

    Raises StoreError when the blob is missing, CorruptError when its bytes changed.
    """
    digest = manifest.blobs.tokenizer
    with _lock:
        tokenizer = _open.get(digest)
        if tokenizer is None:
            tokenizer = Tokenizer.from_bundle(store.blobs.read_bytes(digest))
            _open[digest] = tokenizer
        return tokenizer
