"""One file of a hub repository into the usual cache, resumable and checked."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Self

import filelock
from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    get_session,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

from subllm.errors import AcquireError, DigestError, NetworkError
from subllm.models.acquire.hub_client import UNREACHABLE, HubClient, HubFile, Listing
from subllm.models.store.files import CHUNK, check_space, disk_errors, hash_file

OnBytes = Callable[[int], None]
_ETAG = re.compile(r"[0-9A-Za-z_-]{8,128}")
_TRIES = 3  # in a row without a new byte
_PAUSE_SECONDS = 1.0


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
    DiskFullError, StoreError; what arrived stays for the next try, unless its digest is
    wrong.
    """
    cached = cached_file(listing.repo, file.name, listing.commit, listing.repo_type)
    if cached is not None:
        with disk_errors(cached):
            digest = hash_file(cached, on_bytes)
            if not _matches(cached, digest, file.sha256, file.git_sha1):
                raise DigestError(
                    f"{cached} in the Hugging Face cache is damaged; delete it, then pull again"
                )
        return cached, digest
    if listing.from_cache:
        raise AcquireError(
            f"{file.name} of {listing.repo} just vanished from the Hugging Face cache; pull again"
        )
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
    with _lock(cache / ".locks" / folder / f"{etag}.lock"):
        if blob.exists():
            with disk_errors(blob):
                digest = hash_file(blob, on_bytes)
        else:
            digest = stream(client, url, blob, size, on_bytes)
        sha256 = file.sha256 or (etag if re.fullmatch(r"[0-9a-f]{64}", etag) else None)
        git_sha1 = etag if re.fullmatch(r"[0-9a-f]{40}", etag) else None
        with disk_errors(blob):
            if not _matches(blob, digest, sha256, git_sha1):
                blob.unlink()
                raise DigestError(
                    f"{file.name} of {listing.repo} has not the digest that the hub announces; "
                    "nothing was stored, pull again"
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
    )
    return Path(path), digest


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """The library's own lock on a blob: its users wait for us, and we for them."""
    lock = filelock.FileLock(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _matches(path: Path, digest: str, sha256: str | None, git_sha1: str | None) -> bool:
    """Whether a file with this digest is the announced one, as far as anything is known."""
    if sha256 is not None:
        return digest == f"sha256-{sha256}"
    if git_sha1 is None:
        return True
    data = path.read_bytes()  # small: git keeps large files elsewhere
    hasher = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
    return hasher.hexdigest() == git_sha1


def stream(client: HubClient, url: str, blob: Path, size: int, on_bytes: OnBytes) -> str:
    """Download to `<blob>.incomplete`, going on where an earlier try stopped, then rename it to
    `blob`; the digest. Raises what `HubClient.errors` turns into errors of ours."""
    partial = blob.with_name(blob.name + ".incomplete")
    with disk_errors(partial):
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        check_space(partial.parent, size - min(size, partial.stat().st_size))
    with _Partial(partial, size, on_bytes) as file:
        tries = 0
        while file.size < size:
            before = file.size
            try:
                _receive(client, url, file)
            except UNREACHABLE as error:
                if isinstance(error, HfHubHTTPError) and error.response.status_code < 500:
                    raise
                tries = 1 if file.size > before else tries + 1
                if tries >= _TRIES:
                    raise
                time.sleep(_PAUSE_SECONDS)
        digest = file.digest()
    with disk_errors(blob):
        partial.replace(blob)
    return digest


def _receive(client: HubClient, url: str, file: _Partial) -> None:
    """What the server sends from the end of `file` on."""
    headers = build_hf_headers(token=client.token) | {"Accept-Encoding": "identity"}
    if file.size:
        headers["Range"] = f"bytes={file.size}-"
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    # Another host is not shown the token: the HTTP library sees to that on redirects.
    with get_session().stream(
        "GET", url, headers=headers, timeout=timeout, follow_redirects=True
    ) as response:
        hf_raise_for_status(response)
        if file.size and response.status_code == 200:
            file.restart()
        for piece in response.iter_bytes():  # as they come: whole ones would be lost in part
            file.append(piece)
    if file.size < file.expected:
        raise ConnectionError(f"only {file.size} of {file.expected} bytes came")


class _Partial:
    """A file that grows at its end up to `expected` bytes, hashed on the way."""

    def __init__(self, path: Path, expected: int, on_bytes: OnBytes) -> None:
        self.expected = expected
        self.size = 0
        self._path = path
        self._on_bytes = on_bytes
        self._hasher = hashlib.sha256()
        with disk_errors(path):
            self._file: IO[bytes] = path.open("r+b", buffering=0)

    def __enter__(self) -> Self:
        """Count and hash what an earlier try left; what is too long is no such thing."""
        with disk_errors(self._path):
            if self._path.stat().st_size > self.expected:
                self._file.truncate(0)
            while piece := self._file.read(CHUNK):
                self._count(piece)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, data: bytes) -> None:
        """Raises NetworkError when the server sends more than it announced."""
        if self.size + len(data) > self.expected:
            raise NetworkError(f"the hub sends more than the {self.expected} bytes of a file")
        rest = memoryview(data)
        while rest:  # an unbuffered file may take less than it is given
            with disk_errors(self._path):
                count = self._file.write(rest)
            self._count(rest[:count])
            rest = rest[count:]

    def restart(self) -> None:
        """Forget everything."""
        with disk_errors(self._path):
            self._file.seek(0)
            self._file.truncate()
        self._on_bytes(-self.size)
        self.size = 0
        self._hasher = hashlib.sha256()

    def digest(self) -> str:
        return f"sha256-{self._hasher.hexdigest()}"

    def _count(self, data: bytes | memoryview) -> None:
        self._hasher.update(data)
        self.size += len(data)
        self._on_bytes(len(data))
