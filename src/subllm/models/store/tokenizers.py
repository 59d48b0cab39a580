"""The tokenizer of a stored model: once in a process, from a form that needs no reading.

A bundle of 150,000 tokens takes a third of a second and 75 MB to read. So beside the
blobs lie compact files, `cache/<digest of the bundle>.tokenizer`, which are mapped. They
are made when a tokenizer is first opened, are believed only if their own digest matches
and they name the bundle, and may be deleted at any time.
"""

from __future__ import annotations

import json
import mmap
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from weakref import WeakValueDictionary

from subllm.errors import BackendError, StoreError
from subllm.models.store.files import write_atomic
from subllm.models.store.manifest import ModelManifest
from subllm.models.store.store import Store
from subllm.models.text.bpe_tables import tables_of
from subllm.models.text.coder import LibraryCoder
from subllm.models.text.compact_file import from_compact, to_compact
from subllm.models.text.table_coder import TableCoder, agree
from subllm.models.text.tokenizer import Tokenizer

# By digest of the blob, which says all: whose store it was does not matter.
_open: WeakValueDictionary[str, Tokenizer] = WeakValueDictionary()
_lock = threading.Lock()


def open_tokenizer(store: Store, manifest: ModelManifest) -> Tokenizer:
    """The same object while anyone holds it: all sub-models of a base share it.

    Raises StoreError when the blob is missing, CorruptError when its bytes changed and
    no compact file stands for them.
    """
    digest = manifest.blobs.tokenizer
    with _lock:
        tokenizer = _open.get(digest)
        if tokenizer is None:
            tokenizer = _open[digest] = _read(store, digest)
        return tokenizer


def _read(store: Store, digest: str) -> Tokenizer:
    store.blobs.path(digest)  # a compact file does not stand for a missing blob
    path = store.workspace.compact_tokenizer(digest)
    try:
        facts, tables = from_compact(_map(path), digest)
    except (OSError, ValueError):
        tokenizer = Tokenizer.from_bundle(store.blobs.read_bytes(digest))
        _make(store, path, digest, tokenizer)
        return tokenizer
    if tables is not None:
        with suppress(BackendError):  # no native module to merge with
            return Tokenizer(TableCoder(tables), facts, partial(_definition, store, digest))
    return Tokenizer.from_bundle(store.blobs.read_bytes(digest))


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _make(store: Store, path: Path, digest: str, tokenizer: Tokenizer) -> None:
    """Write the compact file; a store that cannot be written to does without."""
    library = tokenizer.coder
    assert isinstance(library, LibraryCoder)
    with suppress(StoreError, BackendError, OSError):
        tables = tables_of(library)
        if tables is not None and not agree(TableCoder(tables), library, tokenizer.facts.markers):
            tables = None
        data = to_compact(digest, tokenizer.facts, tables)
        with store.workspace.mutation():
            path.parent.mkdir(exist_ok=True)
            write_atomic(path, data, store.workspace.partials)


def _definition(store: Store, digest: str) -> str:
    text: str = json.loads(store.blobs.read_bytes(digest))["tokenizer"]
    return text
