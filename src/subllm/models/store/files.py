"""Files of the store: full disks speak, digests are taken, trees go."""

from __future__ import annotations

import errno
import hashlib
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from subllm.errors import DiskFullError, StoreError
from subllm.files import write_whole

CHUNK = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's errors on `path` into DiskFullError or StoreError."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFullError(
                f"no space left on the disk of {path}; free some, or run 'subllm gc'"
            ) from error
        if error.errno in _READ_ONLY:
            raise StoreError(
                f"{error.filename or path} cannot be written ({error.strerror}); check its "
                "permissions or point SUBLLM_HOME elsewhere"
            ) from error
        raise StoreError(
            f"{error.filename or path}: {error.strerror or error}; check the disk"
        ) from error


def check_space(directory: Path, size: int) -> None:
    """DiskFullError when `size` bytes do not fit on the disk of `directory`."""
    free = shutil.disk_usage(directory).free
    if size > free:
        raise DiskFullError(
            f"{megabytes(size)} are needed in {directory}, {megabytes(free)} are free; "
            "free some space, or run 'subllm gc'"
        )


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def write_atomic(target: Path, data: bytes, scratch: Path, mode: int = 0o644) -> None:
    """Replace `target` by `data`; `scratch` is a directory on the same filesystem.

    Raises DiskFullError or StoreError; then `target` is as it was.
    """
    with disk_errors(target):
        write_whole(target, data, scratch / f"tmp-{uuid.uuid4().hex}", mode=mode)


def hash_file(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """`sha256-<hex>` of a file, read in pieces; `on_bytes` hears the size of each."""
    hasher = hashlib.sha256()
    buffer = memoryview(bytearray(CHUNK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            hasher.update(buffer[:count])
            if on_bytes is not None:
                on_bytes(count)
    return f"sha256-{hasher.hexdigest()}"


def remove_tree(path: Path) -> int:
    """Delete a file or directory (a link is only unlinked); the bytes that it held."""
    size = tree_size(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    return size


def tree_size(path: Path) -> int:
    """Bytes in a file or in all files of a directory; 0 when it is gone."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return 0
    if not stat.S_ISDIR(status.st_mode):
        return status.st_size if stat.S_ISREG(status.st_mode) else 0
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file() and not p.is_symlink())
