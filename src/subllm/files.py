"""Files that appear whole: a crash leaves the old bytes or the new ones.

A file is written under another name, flushed to the disk, renamed, and then its
directory is flushed: after a power cut, too, the name shows old bytes or new ones.
Errors are the operating system's; callers say what they mean.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self

# What a file system answers that cannot flush a directory.
_NO_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.EACCES)


class Replacement:
    """Bytes that take the place of `target` at `commit`; until then it is as it was.

    As a context manager it commits on success and discards on an exception.
    """

    def __init__(
        self, target: Path, partial: Path | None = None, *, mode: int | None = None
    ) -> None:
        """partial  where the bytes lie meanwhile, on the same file system; None is
                    `<target>.partial`, of which a crash leaves one at most
        mode     permissions; None is what the process gives new files
        """
        self.target = target
        self.partial = partial or target.with_name(target.name + ".partial")
        self.mode = mode
        self.file: BinaryIO = self.partial.open("w+b")

    def commit(self) -> None:
        """Raises OSError; the target is then as it was and nothing else is left."""
        try:
            self.file.flush()
            if self.mode is not None:
                os.fchmod(self.file.fileno(), self.mode)
            os.fsync(self.file.fileno())
            self.file.close()
            publish(self.partial, self.target)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Remove what was written."""
        with suppress(OSError):  # a full disk refuses the buffered rest again
            self.file.close()
        self.partial.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.commit()
        else:
            self.discard()


def write_whole(
    target: Path, data: bytes, partial: Path | None = None, *, mode: int | None = None
) -> None:
    """Replace `target` by `data`; see `Replacement`. Raises OSError."""
    with Replacement(target, partial, mode=mode) as new:
        new.file.write(data)


def publish(partial: Path, target: Path) -> None:
    """Rename a finished, flushed file over `target`, durably."""
    partial.replace(target)
    sync_directory(target.parent)


def sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_directory(directory: Path) -> None:
    try:
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FLUSH:
            raise
