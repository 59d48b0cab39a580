"""Shared models in a directory, or in one file: a tar archive of that directory."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO

from subllm.errors import AcquireError, StoreError
from subllm.models.acquire.share.index import INDEX
from subllm.models.acquire.share.place import OnBytes, Place
from subllm.models.store.files import CHUNK, check_space, disk_errors

ARCHIVES = (".subllm", ".tar")
"""How files of models end, to be known as such where none is there yet."""

_MEMBERS = 2_000


def local_place(path: Path) -> Place | None:
    """The place at `path`, None where no models were pushed to it. Raises StoreError."""
    if path.is_dir():
        return DirectoryPlace(path) if (path / INDEX).is_file() else None
    return ArchivePlace(path) if is_archive(path) else None


def is_archive(path: Path) -> bool:
    """Whether a file is an archive of models: one whose first member is the index."""
    if not path.is_file():
        return False
    with disk_errors(path), path.open("rb") as file:
        return file.read(len(INDEX) + 1) == INDEX.encode() + b"\0"


class _Local:
    """What the two have in common: bytes in a file of this machine."""

    revision = ""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.label = f"path:{self.path}"

    def read(self, name: str, limit: int) -> bytes:
        with self._open(name) as (file, size):
            if size > limit:
                raise AcquireError(f"{name} in {self.path} is larger than it can be; push it again")
            return _read(file, size)

    def fetch(self, name: str, size: int, target: Path, on_bytes: OnBytes) -> None:
        with self._open(name) as (file, held), disk_errors(target):
            check_space(target.parent, size)
            left = min(size, held)
            with target.open("wb") as out:
                while left and (piece := file.read(min(CHUNK, left))):
                    out.write(piece)
                    on_bytes(len(piece))
                    left -= len(piece)

    def _open(self, name: str) -> AbstractContextManager[tuple[IO[bytes], int]]:
        """At its bytes, and how many they are. Raises AcquireError, StoreError."""
        raise NotImplementedError

    def _missing(self, name: str) -> AcquireError:
        return AcquireError(f"{self.path} lacks {name}; push the models to it again")


class DirectoryPlace(_Local):
    """A directory. Links to files in it are not followed."""

    @contextmanager
    def _open(self, name: str) -> Iterator[tuple[IO[bytes], int]]:
        path = self.path / name
        try:
            # Neither followed nor waited for, should it be a link or a pipe.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError as error:
            raise self._missing(name) from error
        except OSError as error:
            raise StoreError(f"{path} cannot be read ({error.strerror}); check it") from error
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise self._missing(name)
            yield file, status.st_size


class ArchivePlace(_Local):
    """A file. Nothing is unpacked but what is asked for, to where the asker wants it."""

    def __init__(self, path: Path) -> None:
        """Raises AcquireError for a damaged archive, StoreError."""
        super().__init__(path)
        self._members: dict[str, tuple[int, int]] = {}  # where its bytes begin, and how many
        try:
            # Uncompressed only, so that a small file cannot become a large one.
            with disk_errors(path), tarfile.open(path, "r:") as archive:
                for count, member in enumerate(archive):
                    if count == _MEMBERS:
                        raise AcquireError(f"{path} holds too many files to be one of models")
                    if member.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
                        self._members[member.name] = member.offset_data, member.size
        except (tarfile.TarError, ValueError, EOFError) as error:
            raise AcquireError(f"{path} is damaged; copy it again") from error

    @contextmanager
    def _open(self, name: str) -> Iterator[tuple[IO[bytes], int]]:
        if name not in self._members:
            raise self._missing(name)
        start, size = self._members[name]
        with disk_errors(self.path), self.path.open("rb", buffering=0) as file:
            file.seek(start)
            yield file, size


def _read(file: IO[bytes], size: int) -> bytes:
    pieces = bytearray()
    while len(pieces) < size and (piece := file.read(size - len(pieces))):
        pieces += piece
    return bytes(pieces)
