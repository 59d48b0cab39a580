"""What a push puts to a place: models of the store, besides those that are there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from subllm.errors import CorruptError
from subllm.models.acquire.share.index import (
    CARD,
    INDEX,
    LICENCE,
    ShareIndex,
    blob_path,
    manifest_path,
)
from subllm.models.acquire.share.place import OnBytes, Place, read_index, read_manifests
from subllm.models.store.files import CHUNK, hash_file
from subllm.sharing.exchange.card import card, licence_text
from subllm.sharing.exchange.parcel import Parcel


@dataclass(frozen=True)
class Shipment:
    """All files of the place when the push is done, by path: `small` in memory, in the order in
    which they are to be written, `blobs` of the models pushed where they lie in the store; index
    lists those of others too."""

    index: ShareIndex
    small: dict[str, bytes]
    blobs: dict[str, Path]

    @property
    def total(self) -> int:
        """Bytes of its blobs."""
        return sum(path.stat().st_size for path in self.blobs.values())


@dataclass(frozen=True)
class Sent:
    """Bytes of blobs that went, and of those that were there; where people find them, and how
    `subllm pull` is told."""

    sent: int
    present: int
    place: str
    pull: str


def ship(parcels: Sequence[Parcel], there: Place | None, title: str, pull: str) -> Shipment:
    """title and pull are what the card says. Raises what `read_manifests` does, of `there`."""
    index, manifests = ShareIndex(models=()), {}
    if there is not None:
        index = read_index(there)
        manifests = read_manifests(there, index)
    index = index.with_models(tuple(one.entry for one in parcels))
    manifests |= {one.manifest.name: one.manifest for one in parcels}
    listed = [manifests[model.name] for model in index.models]
    sizes = {digest: size for model in index.models for digest, size in model.blobs.items()}
    small = {manifest_path(one.entry.manifest): one.data for one in parcels}
    small[LICENCE] = licence_text(listed).encode()
    small[CARD] = card(title, pull, listed, sizes).encode()
    small[INDEX] = index.encode()
    blobs = {blob_path(digest): path for one in parcels for digest, path in one.blobs.items()}
    return Shipment(index, small, blobs)


def obsolete(index: ShareIndex, names: Sequence[str]) -> list[str]:
    """Those of `names`, paths in a place, that were of models which the index lacks now."""
    needed = index.files()
    return [
        name for name in names if name.startswith(("blobs/", "manifests/")) and name not in needed
    ]


def pieces(path: Path, digest: str, on_bytes: OnBytes) -> Iterator[bytes]:
    """A blob, checked: raises CorruptError instead of its last piece where it is not what it
    was."""
    hasher = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        piece = file.read(CHUNK)
        while piece:
            hasher.update(piece)
            following = file.read(CHUNK)
            if not following and f"sha256-{hasher.hexdigest()}" != digest:
                raise damaged(digest)
            on_bytes(len(piece))
            yield piece
            piece = following


def check_blob(path: Path, digest: str) -> None:
    """Raises CorruptError."""
    if hash_file(path) != digest:
        raise damaged(digest)


def damaged(digest: str) -> CorruptError:
    return CorruptError(
        f"blob {digest[:19]}... of the store does not match its digest, it was not given away; "
        "run 'subllm verify'"
    )
