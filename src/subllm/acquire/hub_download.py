"""One file of a hub repository into the usual cache, resumable and checked."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

import filelock
from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.utils._headers import build_hf_headers

from subllm.acquire.hub_client import HubClient, HubFile, Listing
from subllm.errors import DigestError, NetworkError
from subllm.store.files import CHUNK, check_space, disk_errors, hash_file

OnBytes = Callable[[int], None]
_ETAG = re.compile(r"[0-9A-Za-z_-]{8,128}")


class _NoBar:
    """Stands in for the library's progress bar; `on_bytes` reports instead."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, _: float = 1) -> None:
        pass


def cached_file(repo: str, name: str, commit: str, repo_type: str = "model") -> Path | None:
    """Where the cache holds that file, or None. Opens no connection."""
    found = try_to_load_from_cache(
        repo, name, cache_dir=constants.HF_HUB_CACHE, revision=commit, repo_type=repo_type
    )
    return Path(found) if isinstance(found, str) else None


def download(
    client: HubClient, listing: Listing, file: HubFile, on_bytes: OnBytes
) -> tuple[Path, str]:
    """The file's place in the cache and its digest (sha256-...).

    `on_bytes` hears how many bytes came, or were there already; it is negative when the
    server makes a download start over. Raises NetworkError, GatedError, DigestError,
    DiskFullError; what arrived stays for the next try, unless its digest is wrong.
    """
    cached = cached_file(listing.repo, file.name, listing.commit, listing.repo_type)
    if cached is not None:
        digest = hash_file(cached, on_bytes)
        if file.sha256 is not None and digest != f"sha256-{file.sha256}":
            raise DigestError(
                f"{cached} in the Hugging Face cache is damaged; delete it, then pull again"
            )
        return cached, digest
    with client.errors(listing.repo):
        return _fetch(client, listing, file, on_bytes)


def _fetch(
    client: HubClient, listing: Listing, file: HubFile, on_bytes: OnBytes
) -> tuple[Path, str]:
    url = hf_hub_url(
        listing.repo,
        file.name,
        repo_type=listing.repo_type,
        revision=listing.commit,
        endpoint=client.endpoint,
    )
    metadata = get_hf_file_metadata(url, token=client.token, endpoint=client.endpoint)
    etag, size = metadata.etag, metadata.size
    if etag is None or size is None or not _ETAG.fullmatch(etag):
        raise NetworkError(f"{client.endpoint} sent no usable size and ETag for {file.name}")
    cache = Path(constants.HF_HUB_CACHE)
    folder = repo_folder_name(repo_id=listing.repo, repo_type=listing.repo_type)
    blob = cache / folder / "blobs" / etag
    lock = cache / ".locks" / folder / f"{etag}.lock"
    with disk_errors(cache):
        blob.parent.mkdir(parents=True, exist_ok=True)
        lock.parent.mkdir(parents=True, exist_ok=True)
    # The library's own lock on this blob: its users wait for us, and we for them.
    with filelock.FileLock(lock):
        if blob.exists():
            digest = hash_file(blob, on_bytes)
        else:
            digest = _stream(client, url, blob, size, on_bytes)
    expected = file.sha256 or (etag if re.fullmatch(r"[0-9a-f]{64}", etag) else None)
    if expected is not None and digest != f"sha256-{expected}":
        blob.unlink(missing_ok=True)
        raise DigestError(
            f"{file.name} of {listing.repo} has digest {digest[:19]}..., the hub says "
            f"sha256-{expected[:12]}...; nothing was stored, pull again"
        )
    # The blob is there: this only makes the library's link to it.
    path = hf_hub_download(
        listing.repo,
        file.name,
        repo_type=listing.repo_type,
        revision=listing.commit,
        cache_dir=cache,
        token=client.token,
        endpoint=client.endpoint,
        tqdm_class=cast(Any, _NoBar),
    )
    return Path(path), digest


def _stream(client: HubClient, url: str, blob: Path, size: int, on_bytes: OnBytes) -> str:
    """Download to `<blob>.incomplete`, going on where an earlier try stopped."""
    partial = blob.with_name(blob.name + ".incomplete")
    partial.touch()
    if partial.stat().st_size > size:
        partial.unlink()
        partial.touch()
    check_space(blob.parent, size - partial.stat().st_size)
    with partial.open("r+b", buffering=0) as raw:
        file = _HashingFile(raw, on_bytes)
        http_get(
            url,
            cast(BinaryIO, file),
            resume_size=file.tell(),
            headers=build_hf_headers(token=client.token),
            expected_size=size,
            tqdm_class=cast(Any, _NoBar),
        )
    partial.replace(blob)
    return file.digest()


class _HashingFile(io.RawIOBase):
    """Appends to `raw`, whose content counts from the start; hashes what is in it."""

    def __init__(self, raw: io.FileIO, on_bytes: OnBytes) -> None:
        self._raw = raw
        self._path = Path(str(raw.name))
        self._on_bytes = on_bytes
        self._hasher = hashlib.sha256()
        while chunk := raw.read(CHUNK):
            self._hasher.update(chunk)
            on_bytes(len(chunk))

    def write(self, data: Any) -> int:
        view = memoryview(data)
        while view:
            with disk_errors(self._path):
                count = self._raw.write(view)
            self._hasher.update(view[:count])
            self._on_bytes(count)
            view = view[count:]
        return len(data)

    def tell(self) -> int:
        return self._raw.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._raw.seek(offset, whence)

    def truncate(self, size: int | None = None) -> int:
        """The server began anew: so do the digest and the count of bytes."""
        kept = self._raw.tell() if size is None else size
        lost = self._raw.seek(0, io.SEEK_END) - kept
        self._raw.truncate(kept)
        self._raw.seek(0)
        self._hasher = hashlib.sha256()
        while chunk := self._raw.read(CHUNK):
            self._hasher.update(chunk)
        self._on_bytes(-lost)
        return kept

    def digest(self) -> str:
        return f"sha256-{self._hasher.hexdigest()}"
