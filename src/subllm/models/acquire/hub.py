"""A base from a hub repository: the files that are needed, in the usual cache."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

from subllm.errors import (
    AcquireError,
    DigestError,
    NetworkError,
    OfflineError,
    SharedModelsError,
)
from subllm.models.acquire import checkpoint
from subllm.models.acquire.fetched import Fetched
from subllm.models.acquire.hub_client import HubClient, HubFile, Listing, RepoType
from subllm.models.acquire.hub_download import cached_file, download
from subllm.models.acquire.prompts import special_tokens
from subllm.models.acquire.share.index import INDEX
from subllm.models.catalog.schema import HubSource
from subllm.models.store.files import check_space, disk_errors
from subllm.models.store.manifest import FileEntry
from subllm.progress import Progress

_KEY = "pull"


def fetch_hub(source: HubSource, client: HubClient, progress: Progress, offline: bool) -> Fetched:
    """The files of `source`, complete and checked. What the cache holds is used as it
    is; `offline`, and when the hub does not answer, that must be all of it.

    Raises NetworkError, OfflineError, GatedError, DigestError, AcquireError,
    DiskFullError, WeightsError (an unsupported architecture), SharedModelsError.
    """
    if offline:
        cached = cached_listing(source.repo, source.revision)
        if cached is None:
            raise OfflineError(
                f"{source.repo} is not in the Hugging Face cache and SUBLLM_OFFLINE is set; "
                "unset it to fetch"
            )
        return _Fetch(source, client, cached, progress).run()
    try:
        listing = client.list_files(source.repo, source.revision)
    except NetworkError as error:
        cached = cached_listing(source.repo, source.revision)
        if cached is None:
            raise
        progress.note(f"{error}; looking for {source.repo} in the Hugging Face cache")
        try:
            return _Fetch(source, client, cached, progress).run()
        except AcquireError:
            raise error from None
    fetched = _Fetch(source, client, listing, progress).run()
    remember(listing, source.revision)
    return fetched


def remember(listing: Listing, revision: str) -> None:
    """Tell the cache's other users, and ourselves when offline, where a branch points."""
    if revision == listing.commit:
        return
    path = _folder(listing.repo, listing.repo_type) / "refs" / revision
    with suppress(OSError):  # a cache that cannot be written still serves what it holds
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(listing.commit)


def _folder(repo: str, repo_type: RepoType) -> Path:
    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type=repo_type)


def cached_listing(repo: str, revision: str, repo_type: RepoType = "model") -> Listing | None:
    """What the cache holds of a repository, complete or not; None when nothing."""
    folder = _folder(repo, repo_type)
    commit = revision
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        try:
            commit = (folder / "refs" / revision).read_text().strip()
        except OSError:
            return None
    snapshot = folder / "snapshots" / commit
    files = {}
    for path in sorted(snapshot.rglob("*")):
        if path.is_file():
            name = path.relative_to(snapshot).as_posix()
            # One step only: a blob may be a link to a store that names files otherwise.
            blob = path.readlink().name if path.is_symlink() else ""
            sha256 = blob if re.fullmatch(r"[0-9a-f]{64}", blob) else None
            git_sha1 = blob if re.fullmatch(r"[0-9a-f]{40}", blob) else None
            files[name] = HubFile(name, path.stat().st_size, sha256, git_sha1)
    return Listing(repo, repo_type, commit, files, from_cache=True) if files else None


class _Fetch:
    def __init__(
        self, source: HubSource, client: HubClient, listing: Listing, progress: Progress
    ) -> None:
        self._source = source
        self._client = client
        self._listing = listing
        self._progress = progress
        self._names = [name for name in listing.files if "/" not in name]

    def run(self) -> Fetched:
        if INDEX in self._names and checkpoint.CONFIG not in self._names:
            raise SharedModelsError(f"hf:{self._source.repo}")
        if self._source.file is not None:
            return self._gguf(self._source.file)
        return self._safetensors()

    def _gguf(self, name: str) -> Fetched:
        file = self._listing.files.get(name)
        if file is None:
            raise AcquireError(f"{self._source.repo} has no file {name}; correct the catalog")
        pinned = self._source.sha256
        if pinned is not None and file.sha256 not in (None, pinned):
            raise DigestError(
                f"{name} of {self._source.repo} is not the file that the catalog pins "
                f"(sha256-{pinned[:12]}...); nothing was stored, use another source"
            )
        entries = self._download([file])
        if pinned is not None and entries[0].digest != f"sha256-{pinned}":
            raise DigestError(
                f"{name} of {self._source.repo} has digest {entries[0].digest[:19]}..., the "
                f"catalog pins sha256-{pinned[:12]}...; nothing was stored, use another source"
            )
        return self._fetched(entries, "gguf")

    def _safetensors(self) -> Fetched:
        where = self._source.repo
        sides = checkpoint.side_files(self._names, where)
        config = checkpoint.parse_config(self._read(checkpoint.CONFIG), where)
        index = self._read(checkpoint.INDEX) if checkpoint.INDEX in self._names else None
        weights = checkpoint.weight_files(self._names, index, where)
        if index is not None:
            sides.append(checkpoint.INDEX)
        entries = self._download([self._listing.files[name] for name in (*sides, *weights)])
        tokenizer = {
            entry.name: Path(entry.hub_path).read_bytes()
            for entry in entries
            if entry.name == checkpoint.TOKENIZER and entry.hub_path is not None
        }
        return self._fetched(
            entries, "safetensors", config=config, special=special_tokens(tokenizer)
        )

    def _fetched(self, entries: list[FileEntry], weights: Any, **details: Any) -> Fetched:
        return Fetched(
            files=tuple(entries),
            weights=weights,
            source=f"hub:{self._source.repo}",
            revision=self._listing.commit,
            licence_text=self._licence_text(),
            titles=(self._source.repo.rpartition("/")[2],),
            **details,
        )

    def _read(self, name: str) -> bytes:
        path, _ = download(self._client, self._listing, self._listing.files[name], _unheard)
        return path.read_bytes()

    def _licence_text(self) -> str:
        for name in checkpoint.LICENCES:
            file = self._listing.files.get(name)
            if file is not None and file.size <= checkpoint.LICENCE_BYTES:
                return self._read(name).decode("utf-8", "replace")
        return ""

    def _download(self, files: list[HubFile]) -> list[FileEntry]:
        total = sum(file.size for file in files)
        missing = sum(file.size - self._held(file) for file in files)
        cache = Path(constants.HF_HUB_CACHE)
        if missing:
            with disk_errors(cache):
                cache.mkdir(parents=True, exist_ok=True)
                check_space(cache, missing)
        self._progress.start(_KEY, self._source.repo, total, "bytes")
        try:
            return [self._entry(file) for file in files]
        finally:
            self._progress.finish(_KEY)

    def _held(self, file: HubFile) -> int:
        """Bytes of `file` that need not come again."""
        listing = self._listing
        if cached_file(listing.repo, file.name, listing.commit) is not None:
            return file.size
        folder = _folder(listing.repo, listing.repo_type)
        partial = folder / "blobs" / f"{file.sha256 or file.git_sha1}.incomplete"
        return min(file.size, partial.stat().st_size) if partial.exists() else 0

    def _entry(self, file: HubFile) -> FileEntry:
        path, digest = download(self._client, self._listing, file, self._report)
        size = path.stat().st_size
        return FileEntry(name=file.name, size=size, digest=digest, hub_path=str(path.absolute()))

    def _report(self, count: int) -> None:
        self._progress.advance(_KEY, count)


def _unheard(_: int) -> None:
    """Small files are not worth a bar."""
