"""How many bytes a name takes: its own, shared with others, outside the store."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from subllm.errors import StoreError
from subllm.models.store.manifest import BaseManifest, blob_digests
from subllm.models.store.recovery_state import state_size
from subllm.models.store.store import Store
from subllm.models.store.unrounded import unrounded_size


@dataclass(frozen=True)
class Sizes:
    """Bytes. `own` and `recovery` are what removing the name would free."""

    own: int = 0
    shared: int = 0  # of blobs that other names need too
    shared_with: tuple[str, ...] = ()
    outside: int = 0  # of a base's files in the hub's cache or where the user keeps them
    recovery: int = 0  # what its recovery would go on with: a state, what was rounded
    missing: int = 0  # blobs that should be there and are not
    damaged: bool = False  # the manifest cannot be read; nothing is known of its blobs

    @property
    def total(self) -> int:
        """Bytes in the store, own and shared."""
        return self.own + self.shared


def sizes_of(store: Store, name: str) -> Sizes:
    """`Sizes` of one name; UnknownNameError."""
    store.resolve(name)
    return all_sizes(store)[name]


def all_sizes(store: Store) -> dict[str, Sizes]:
    """`Sizes` of every name, reading each manifest once.

    Damage does not fail a listing, it is told in the result.
    """
    blobs: dict[str, tuple[str, ...]] = {}
    outside: dict[str, int] = {}
    names = store.names()
    for name, digest in names.items():
        try:
            manifest = store.manifest(digest)
        except StoreError:
            continue
        blobs[name] = tuple(dict.fromkeys(blob_digests(manifest)))
        if isinstance(manifest, BaseManifest):
            files = manifest.files
            outside[name] = sum(f.size for f in files if f.hub_path or f.local_path)
    users: defaultdict[str, set[str]] = defaultdict(set)
    for name, digests in blobs.items():
        for digest in digests:
            users[digest].add(name)
    sizes = {digest: store.blobs.size(digest) for digest in users if store.blobs.has(digest)}
    result = {}
    for name in names:
        if name not in blobs:
            result[name] = Sizes(damaged=True)
            continue
        shared = [digest for digest in blobs[name] if len(users[digest]) > 1]
        others = set[str]().union(*(users[digest] for digest in shared)) - {name}
        result[name] = Sizes(
            own=sum(sizes.get(d, 0) for d in blobs[name] if d not in shared),
            shared=sum(sizes.get(d, 0) for d in shared),
            shared_with=tuple(sorted(others)),
            outside=outside.get(name, 0),
            recovery=state_size(store.workspace, name, names)
            + unrounded_size(store.workspace, names[name]),
            missing=sum(digest not in sizes for digest in blobs[name]),
        )
    return result
