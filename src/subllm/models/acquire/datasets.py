"""Data sets of the hub: their files, fetched into the usual cache when asked for."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import constants

from subllm.errors import NetworkError, OfflineError
from subllm.models.acquire.hub import cached_listing, remember
from subllm.models.acquire.hub_client import HubClient, Listing
from subllm.models.acquire.hub_download import cached_file, download
from subllm.models.store.files import check_space, disk_errors
from subllm.progress import Progress

LISTING_SECONDS = 20.0  # the listings of large sets are long


class DatasetFiles:
    """The files of one data set at one commit."""

    def __init__(self, client: HubClient, listing: Listing, progress: Progress) -> None:
        self._client = client
        self._listing = listing
        self._progress = progress

    @property
    def names(self) -> list[str]:
        """Paths in the repository, sorted."""
        return sorted(self._listing.files)

    def fetch(self, name: str) -> Path:
        """A path of `names`, complete and checked, in the cache.

        Raises NetworkError, GatedError, DigestError, DiskFullError,
        StoreError.
        """
        file = self._listing.files[name]
        key = f"dataset:{name}"
        listing = self._listing
        if cached_file(listing.repo, name, listing.commit, listing.repo_type) is None:
            cache = Path(constants.HF_HUB_CACHE)
            with disk_errors(cache):
                cache.mkdir(parents=True, exist_ok=True)
            check_space(cache, file.size)
        self._progress.start(key, f"{listing.repo}/{name}", file.size, "bytes")
        try:
            path, _ = download(
                self._client,
                listing,
                file,
                lambda count: self._progress.advance(key, count),
            )
        finally:
            self._progress.finish(key)
        return path


def open_dataset(
    repo: str,
    revision: str,
    progress: Progress,
    *,
    offline: bool = False,
    client: HubClient | None = None,
) -> DatasetFiles:
    """The data set `repo`; `offline`, or when the hub does not answer, what the cache has.

    Raises NetworkError, OfflineError, GatedError, AcquireError.
    """
    client = client or HubClient(probe_seconds=LISTING_SECONDS)
    if offline:
        cached = cached_listing(repo, revision, "dataset")
        if cached is None:
            raise OfflineError(
                f"the data set {repo} is not in the Hugging Face cache and SUBLLM_OFFLINE is "
                "set; unset it to fetch"
            )
        return DatasetFiles(client, cached, progress)
    try:
        listing = client.list_files(repo, revision, "dataset")
        remember(listing, revision)
    except NetworkError as error:
        cached = cached_listing(repo, revision, "dataset")
        if cached is None:
            raise
        progress.note(f"{error}; taking {repo} from the Hugging Face cache")
        listing = cached
    return DatasetFiles(client, listing, progress)
