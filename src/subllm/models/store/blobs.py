"""Immutable files named by the sha256 of their bytes.

A blob appears under its name only when it is complete, flushed and verified; it is
then read-only. Everything unfinished lies in `partial/`.
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from subllm.errors import CorruptError, DigestError, StoreError
from subllm.files import publish, sync_file
from subllm.models.store.files import CHUNK, check_space, disk_errors, hash_file
from subllm.models.store.manifest import sha256_of
from subllm.models.store.workspace import Workspace

_DIGEST = re.compile(r"sha256-[0-9a-f]{64}")
_BLOB_MODE = 0o444


def check_digest(digest: str) -> str:
    """`digest` itself when it reads `sha256-<64 hex digits>`; StoreError otherwise."""
    if not _DIGEST.fullmatch(digest):
        raise StoreError(f"{digest[:80]!a} is not a digest; it must read sha256-<64 digits>")
    return digest


class BlobWriter:
    """Write, then `commit`. Without a commit nothing stays."""

    def __init__(
        self, store: BlobStore, file: IO[bytes], temporary: Path, expected: str | None
    ) -> None:
        self._store = store
        self._file = file
        self._temporary = temporary
        self._expected = expected
        self._hasher = hashlib.sha256()
        self.size = 0  # bytes written so far

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Raises DiskFullError; the blob is then abandoned when the context ends."""
        rest = memoryview(data).cast("B")
        self._hasher.update(rest)
        self.size += rest.nbytes
        with disk_errors(self._store.directory):
            while rest:  # an unbuffered file may take less than it is given
                rest = rest[self._file.write(rest) :]

    def commit(self) -> str:
        """Publish the blob; returns its digest. DigestError when another was expected."""
        digest = f"sha256-{self._hasher.hexdigest()}"
        _check_expected(digest, self._expected)
        with disk_errors(self._store.directory):
            os.fchmod(self._file.fileno(), _BLOB_MODE)
            os.fsync(self._file.fileno())
        self._store._publish(self._temporary, digest)
        return digest


class BlobStore:
    """The `blobs/` directory of a store."""

    def __init__(self, workspace: Workspace) -> None:
        self.directory = workspace.blobs
        self._workspace = workspace

    def has(self, digest: str) -> bool:
        return self._path(digest).is_file()

    def hold(self, digest: str) -> bool:
        """True when the blob is there, and then it stays while this writer lives."""
        with self._workspace.mutation():
            if not self.has(digest):
                return False
            self._workspace.pin(self._path(digest))
            return True

    def path(self, digest: str) -> Path:
        """Where the blob lies; StoreError when it is not there."""
        path = self._path(digest)
        if not path.is_file():
            raise StoreError(
                f"blob {digest[:19]}... is missing from the store; "
                "run 'subllm verify' to see which models need it"
            )
        return path

    def size(self, digest: str) -> int:
        """Bytes; StoreError when it is not there."""
        return self.path(digest).stat().st_size

    def read_bytes(self, digest: str) -> bytes:
        """The whole of a small blob, checked: CorruptError when the bytes changed."""
        data = self.path(digest).read_bytes()
        if sha256_of(data) != digest:
            raise CorruptError(
                f"blob {digest[:19]}... does not match its digest; run 'subllm verify'"
            )
        return data

    def verify(self, digest: str, on_bytes: Callable[[int], None] | None = None) -> bool:
        """Whether the bytes on the disk still match; StoreError when it is not there."""
        path = self.path(digest)
        with disk_errors(path):
            return hash_file(path, on_bytes) == digest

    @contextmanager
    def writer(self, expected: str | None = None, size: int | None = None) -> Iterator[BlobWriter]:
        """A new blob. `expected` is the digest it must have, `size` its bytes if known.

        Raises DiskFullError before anything is written when `size` does not fit.
        Leaving the context without `commit` leaves nothing behind.
        """
        if expected is not None:
            check_digest(expected)
        with self._workspace.writing():
            if size is not None:
                check_space(self._workspace.partials, size)
            temporary = self._workspace.partials / f"blob-{uuid.uuid4().hex}"
            self._workspace.pin(temporary)
            try:
                with disk_errors(self.directory):
                    file = temporary.open("xb", buffering=0)
                with file:
                    yield BlobWriter(self, file, temporary, expected)
            finally:
                temporary.unlink(missing_ok=True)

    def adopt(self, path: Path, expected: str | None = None) -> str:
        """Make a finished file a blob and return its digest; `path` is gone afterwards.

        It is renamed when it lies on the store's filesystem, else copied. A link, or a
        file that has other hard links, is copied too: whoever holds the other name could
        change a blob through it. DigestError when `expected` is another digest; the
        file then stays where it is.
        """
        with self._workspace.writing(), disk_errors(path):
            status = path.lstat()
            movable = (
                path.is_file()
                and not path.is_symlink()
                and status.st_nlink == 1
                and status.st_dev == self._workspace.partials.stat().st_dev
            )
            if not movable:
                return self._copy_in(path, expected)
            digest = hash_file(path)
            _check_expected(digest, expected)
            path.chmod(_BLOB_MODE)
            sync_file(path)
            self._publish(path, digest)
            return digest

    def put(self, data: bytes) -> str:
        """Store bytes that are in memory; returns their digest."""
        with self.writer(size=len(data)) as writer:
            writer.write(data)
            return writer.commit()

    def _copy_in(self, path: Path, expected: str | None) -> str:
        with path.open("rb") as source, self.writer(expected, path.stat().st_size) as writer:
            while chunk := source.read(CHUNK):
                writer.write(chunk)
            digest = writer.commit()
        path.unlink()
        return digest

    def _publish(self, temporary: Path, digest: str) -> None:
        """A blob that is there already is replaced: the new bytes are known to be good."""
        target = self._path(digest)
        with self._workspace.mutation(), disk_errors(target):
            self._workspace.pin(target)
            publish(temporary, target)

    def _path(self, digest: str) -> Path:
        return self.directory / check_digest(digest)


def _check_expected(digest: str, expected: str | None) -> None:
    if expected is not None and digest != expected:
        raise DigestError(
            f"the bytes have digest {digest[:19]}..., expected was {expected[:19]}...; "
            "nothing was stored, fetch them again or from another source"
        )
