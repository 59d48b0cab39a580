"""From what a user writes to a place of shared models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from subllm.errors import AcquireError, OfflineError, UsageError
from subllm.models.acquire.share.local_place import ARCHIVES, local_place
from subllm.models.acquire.share.place import Place
from subllm.models.store.store import Store
from subllm.progress import Progress
from subllm.sharing.exchange.local_push import push_directory, push_file
from subllm.sharing.exchange.parcel import parcel
from subllm.sharing.exchange.shipment import Sent

if TYPE_CHECKING:
    from subllm.models.acquire.hub_client import HubClient

_HUB = "hf:"
_REPOSITORY = re.compile(r"hf:([\w.-]+/[\w.-]+)(?:@(.+))?", re.ASCII)


def open_place(where: str, *, offline: bool = False, probe_seconds: float = 3.0) -> Place:
    """The models at hf:org/name[@revision], in a directory or in a file.

    Raises UsageError, OfflineError, NetworkError, GatedError, AcquireError (nothing was pushed
    there), StoreError.
    """
    place: Place | None
    if where.startswith(_HUB):
        from subllm.models.acquire.share.hub_place import HubPlace
        from subllm.models.acquire.share.index import INDEX

        repo, revision = _repository(where)
        client = _client(where, offline, probe_seconds)
        listing = client.list_files(repo, revision)
        place = HubPlace(client, listing, revision) if INDEX in listing.files else None
    else:
        path = Path(where).expanduser().absolute()
        if not path.exists():
            raise UsageError(
                f"there is no file or directory {where}; a hub repository is written hf:org/name"
            )
        place = local_place(path)
    if place is None:
        raise AcquireError(
            f"no models were pushed to {where}; 'subllm push NAME {where}' does that"
        )
    return place


def push(
    names: Sequence[str],
    target: str,
    store: Store,
    progress: Progress,
    *,
    public: bool = False,
    offline: bool = False,
    probe_seconds: float = 3.0,
) -> Sent:
    """Give models of the store away: to hf:org/name, a directory, or a file (one that ends as
    ARCHIVES say, or is there). Raises as `parcel` and what pushes to each of them."""
    parcels = [parcel(store, name) for name in dict.fromkeys(names)]
    if target.startswith(_HUB):
        from subllm.sharing.exchange.hub_push import push_hub

        repo, revision = _repository(target)
        if revision != "main":
            raise UsageError(f"{target} names a revision; a push makes a new one, leave it out")
        client = _client(target, offline, probe_seconds)
        return push_hub(parcels, repo, client, progress, public=public)
    if public:
        raise UsageError("--public is for repositories of the hub; leave it out")
    path = Path(target).expanduser()
    if path.is_file() or (path.suffix in ARCHIVES and not path.is_dir()):
        return push_file(parcels, path, progress)
    return push_directory(parcels, path, progress)


def _repository(where: str) -> tuple[str, str]:
    match = _REPOSITORY.fullmatch(where)
    if match is None:
        raise UsageError(f"{where!a} is no hub repository; write hf:org/name")
    return match[1], match[2] or "main"


def _client(where: str, offline: bool, probe_seconds: float) -> HubClient:
    if offline:
        raise OfflineError(f"{where} needs the network and SUBLLM_OFFLINE is set; unset it")
    # Imported late: the library takes a while, and a directory needs none of it.
    from subllm.models.acquire.hub_client import HubClient

    return HubClient(probe_seconds=probe_seconds)
