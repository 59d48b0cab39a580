"""Models of the store into a directory, or into one file."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from subllm.errors import UsageError
from subllm.files import Replacement, write_whole
from subllm.models.acquire.share.index import CARD, INDEX, LICENCE
from subllm.models.acquire.share.local_place import is_archive, local_place
from subllm.models.store.files import check_space, disk_errors, hash_file
from subllm.progress import Progress
from subllm.sharing.exchange.parcel import Parcel
from subllm.sharing.exchange.shipment import Sent, Shipment, obsolete, pieces, ship

_KEY = "push"
_OURS = {INDEX, CARD, LICENCE, "blobs", "manifests"}
_LEFT = {f"{name}.partial" for name in (INDEX, CARD, LICENCE)}  # by a push that was killed


def push_directory(parcels: Sequence[Parcel], path: Path, progress: Progress) -> Sent:
    """Add models to a directory, which is made where it is missing; those that are there stay.

    The index changes last, at once: whoever pulls meanwhile, and a push that was killed, find
    the models of before or those of after. Raises UsageError for a directory of something else,
    as `ship`, and DiskFullError, StoreError.
    """
    path = path.absolute()
    with disk_errors(path):
        names = [one.name for one in path.iterdir()] if path.exists() else []
        other = sorted(name for name in names if name not in _OURS | _LEFT and name[0] != ".")
        if other:
            raise UsageError(
                f"{path} holds other things ({', '.join(other[:3])}); name a new directory"
            )
        there = local_place(path) if names else None
        shipment = ship(parcels, there, path.name, f"{path.name}/")
        (path / "blobs").mkdir(parents=True, exist_ok=True)
        (path / "manifests").mkdir(exist_ok=True)
        missing = {
            name: blob for name, blob in shipment.blobs.items() if not _has(path / name, blob)
        }
        size = sum(blob.stat().st_size for blob in missing.values())
        check_space(path, size)
        progress.start(_KEY, path.name, size, "bytes")
        try:
            for name, blob in missing.items():
                with Replacement(path / name) as new:
                    for piece in pieces(blob, blob.name, lambda n: progress.advance(_KEY, n)):
                        new.file.write(piece)
        finally:
            progress.finish(_KEY)
        for name, data in shipment.small.items():
            write_whole(path / name, data)
        _clean(path, shipment)
    return Sent(size, shipment.total - size, str(path), str(path))


def push_file(parcels: Sequence[Parcel], path: Path, progress: Progress) -> Sent:
    """Write models into one file, an uncompressed tar archive of what `push_directory` makes.
    It takes the place of an archive of models. Raises as that."""
    path = path.absolute()
    with disk_errors(path):
        if path.exists() and not is_archive(path):
            raise UsageError(f"{path} is no archive of models; choose another name")
        shipment = ship(parcels, None, path.stem, path.name)
        check_space(path.parent, shipment.total)
        progress.start(_KEY, path.name, shipment.total, "bytes")
        try:
            with (
                Replacement(path) as new,
                tarfile.open(fileobj=new.file, mode="w", format=tarfile.GNU_FORMAT) as archive,
            ):
                for name in sorted(shipment.small, key=lambda name: name != INDEX):  # first of all
                    data = shipment.small[name]
                    archive.addfile(_member(name, len(data)), io.BytesIO(data))
                for name, blob in shipment.blobs.items():
                    heard = pieces(blob, blob.name, lambda n: progress.advance(_KEY, n))
                    archive.addfile(_member(name, blob.stat().st_size), _Reader(heard))
        finally:
            progress.finish(_KEY)
    return Sent(shipment.total, 0, str(path), str(path))


def _has(target: Path, blob: Path) -> bool:
    """Whether a blob is there, whole. A link is none."""
    return (
        target.is_file()
        and not target.is_symlink()
        and target.stat().st_size == blob.stat().st_size
        and hash_file(target) == blob.name
    )


def _clean(path: Path, shipment: Shipment) -> None:
    """Delete what models needed that are replaced, and what killed pushes left."""
    folders = [path / folder for folder in ("blobs", "manifests")]
    names = [f"{folder.name}/{one.name}" for folder in folders for one in folder.iterdir()]
    for name in obsolete(shipment.index, names):
        (path / name).unlink()
    for name in _LEFT:
        (path / name).unlink(missing_ok=True)


def _member(name: str, size: int) -> tarfile.TarInfo:
    """The same for the same bytes, whoever pushes and when."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member


class _Reader(io.RawIOBase):
    """Pieces as a file to read once."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._left) < size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._left += piece
        taken, self._left = (
            (self._left, b"") if size < 0 else (self._left[:size], self._left[size:])
        )
        return taken
