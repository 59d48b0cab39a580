"""Models of the store into a repository of the hub.

Blobs go first, one after the other: by the hub's own chunk store where `hf_xet` is installed, as
it is with huggingface_hub, and the hub has one, else by the LFS interface. What arrived stays
there, so that a push that was cut off goes on: by the chunk in the first case, by the blob in the
second. Then one commit makes all of it visible at once.
"""

from __future__ import annotations

import importlib
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_token,
)
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.utils import logging as hub_logging

from subllm.errors import AcquireError, GatedError, UsageError
from subllm.models.acquire.hub_client import HubClient, Listing
from subllm.models.acquire.share.hub_place import HubPlace
from subllm.models.acquire.share.index import CARD, INDEX, LICENCE
from subllm.models.acquire.share.place import OnBytes
from subllm.progress import Progress
from subllm.sharing.exchange.hub_errors import push_errors
from subllm.sharing.exchange.parcel import Parcel
from subllm.sharing.exchange.shipment import Sent, Shipment, check_blob, obsolete, ship

_KEY = "push"
_REPORTING = "huggingface_hub.utils._xet_progress_reporting"
_OURS = {INDEX, CARD, LICENCE, ".gitattributes"}
# What the chunk store's client says, which tells errors in text only.
_NO_CHUNK_STORE = re.compile(r"\(404 .*/xet-write-token/")


def push_hub(
    parcels: Sequence[Parcel],
    repo: str,
    client: HubClient,
    progress: Progress,
    *,
    public: bool = False,
) -> Sent:
    """Add models to `repo`, which is made where it is missing, private unless `public`; models
    that are there stay.

    Raises GatedError (no token, or one that may not), NetworkError, AcquireError (no room,
    changed meanwhile, ...), UsageError for a repository of something else, CorruptError, and as
    `ship`. The repository then shows what it showed before.
    """
    if not (client.token or get_token()):
        raise GatedError(
            f"a push to {client.endpoint} needs a token that may write; set HF_TOKEN, or log in "
            "with 'hf auth login'"
        )
    listing = _listing(client, repo)
    other = sorted(name for name in listing.files if not _is_ours(name)) if listing else []
    if other:
        raise UsageError(
            f"{repo} holds other things ({', '.join(other[:3])}); name a new repository"
        )
    there = HubPlace(client, listing) if listing and INDEX in listing.files else None
    shipment = ship(parcels, there, repo.rpartition("/")[2], f"hf:{repo}")
    api = HfApi(endpoint=client.endpoint, token=client.token)
    with push_errors(client, repo), _quiet():
        if listing is None:
            api.create_repo(repo, private=not public, exist_ok=True)
        missing, here = _missing(shipment, listing)
        sent = sum(path.stat().st_size for path in missing.values())
        additions: list[CommitOperationAdd] = []
        progress.start(_KEY, repo, sent, "bytes")
        try:
            for name, path in missing.items():
                additions.append(_upload(api, repo, name, path, progress))
        finally:
            progress.finish(_KEY)
        _commit(api, repo, shipment, additions, listing, [one.manifest.name for one in parcels])
    return Sent(sent, here, f"{client.endpoint}/{repo}", f"hf:{repo}")


def _listing(client: HubClient, repo: str) -> Listing | None:
    """What `repo` holds, None where there is no such repository yet."""
    try:
        return client.list_files(repo)
    except AcquireError as error:
        if isinstance(error.__cause__, RepositoryNotFoundError):
            return None
        raise


def _is_ours(name: str) -> bool:
    return name in _OURS or name.startswith(("blobs/sha256-", "manifests/sha256-"))


def _missing(shipment: Shipment, listing: Listing | None) -> tuple[dict[str, Path], int]:
    """Blobs that are not there, and bytes of those that are."""
    missing, here = {}, 0
    for name, path in shipment.blobs.items():
        size = path.stat().st_size
        file = listing.files.get(name) if listing else None
        digests = (None, path.name.removeprefix("sha256-"))
        if file is not None and file.size == size and file.sha256 in digests:
            here += size
        else:
            missing[name] = path
    return missing, here


def _upload(api: HfApi, repo: str, name: str, path: Path, progress: Progress) -> CommitOperationAdd:
    check_blob(path, path.name)
    size = path.stat().st_size
    heard = 0

    def on_position(position: int) -> None:
        nonlocal heard  # a retry begins again, which is no progress
        position = min(position, size)
        if position > heard:
            progress.advance(_KEY, position - heard)
            heard = position

    addition = _Addition(name, str(path))
    addition.on_position = on_position
    addition.upload_info.sha256 = bytes.fromhex(path.name.removeprefix("sha256-"))
    try:
        with _chunk_progress(on_position):
            api.preupload_lfs_files(repo, [addition], free_memory=False)
    except Exception as error:
        if not _NO_CHUNK_STORE.search(str(error)):
            raise
        with _by_lfs():  # a hub of somebody's own, say
            api.preupload_lfs_files(repo, [addition], free_memory=False)
    on_position(size)  # what was there already, and what goes with the commit
    return addition


def _commit(
    api: HfApi,
    repo: str,
    shipment: Shipment,
    additions: Sequence[CommitOperationAdd],
    listing: Listing | None,
    names: Sequence[str],
) -> None:
    small = [CommitOperationAdd(name, data) for name, data in shipment.small.items()]
    gone = obsolete(shipment.index, list(listing.files)) if listing else []
    api.create_commit(
        repo,
        [*additions, *small, *(CommitOperationDelete(name) for name in gone)],
        commit_message=f"Add {', '.join(names)}",
        # Else the index of somebody who pushes at the same time would be lost.
        parent_commit=listing.commit if listing else None,
    )


class _Addition(CommitOperationAdd):
    """Tells how far it was read while it is sent."""

    on_position: Callable[[int], None]

    @contextmanager
    def as_file(self, with_tqdm: bool = False) -> Iterator[BinaryIO]:
        with super().as_file() as file:
            if with_tqdm:
                read = file.read

                def counted(size: int = -1) -> bytes:
                    data = read(size)
                    self.on_position(file.tell())
                    return data

                file.read = counted  # type: ignore[method-assign]
            yield file


@contextmanager
def _chunk_progress(on_position: OnBytes) -> Iterator[None]:
    """Let the chunk store tell us how far it is, instead of bars of the library's own."""

    class Reporter:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def update_progress(self, report: Any, _items: Any = None) -> None:
            on_position(int(report.total_bytes_completed))

        def close(self) -> None: ...

    try:
        module: Any = importlib.import_module(_REPORTING)
        before = module.XetUploadProgressReporter
    except (ImportError, AttributeError):  # another version of the library: its own bars, then
        yield
        return
    module.XetUploadProgressReporter = Reporter
    try:
        yield
    finally:
        module.XetUploadProgressReporter = before


@contextmanager
def _by_lfs() -> Iterator[None]:
    before = constants.HF_HUB_DISABLE_XET
    constants.HF_HUB_DISABLE_XET = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_XET = before


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's lines on each retry, and what it warns of a card."""
    before = hub_logging.get_verbosity()
    hub_logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        hub_logging.set_verbosity(before)
