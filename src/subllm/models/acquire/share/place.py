"""Where shared models lie, as those see it who read there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from subllm.models.acquire.share.index import (
    INDEX,
    INDEX_BYTES,
    ShareIndex,
    check_manifest,
    manifest_path,
    parse_index,
)
from subllm.models.store.manifest import ModelManifest

OnBytes = Callable[[int], None]


class Place(Protocol):
    """A hub repository at one commit, a directory or a file.

    label     "hub:org/name", "path:/absolute"
    revision  the hub's commit, "" elsewhere
    """

    @property
    def label(self) -> str: ...

    @property
    def revision(self) -> str: ...

    def read(self, name: str, limit: int) -> bytes:
        """A small file by its path in the place. Raises AcquireError where it is missing or has
        more than `limit` bytes, and NetworkError, StoreError."""

    def fetch(self, name: str, size: int, target: Path, on_bytes: OnBytes) -> None:
        """Write a file to `target`, going on with what an earlier call left there where that is
        possible. `on_bytes` hears of `size` bytes in all. What came is for the caller to check.
        Raises as `read`, and DiskFullError."""


def read_index(place: Place) -> ShareIndex:
    """Raises as `Place.read` and `parse_index`."""
    return parse_index(place.read(INDEX, INDEX_BYTES), place.label)


def read_manifests(place: Place, index: ShareIndex) -> dict[str, ModelManifest]:
    """By name. Raises as `Place.read` and `check_manifest`."""
    return {
        model.name: check_manifest(
            model,
            place.read(manifest_path(model.manifest), model.manifest_bytes),
            index,
            place.label,
        )
        for model in index.models
    }
