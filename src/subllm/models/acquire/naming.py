"""Which name a fetched base gets in the store when none was asked for."""

from __future__ import annotations

from subllm.errors import StoreError, UsageError
from subllm.models.acquire.base_names import derive_name, named_size, own_name
from subllm.models.acquire.fetched import Fetched
from subllm.models.acquire.target import Target
from subllm.models.catalog.loader import Catalog
from subllm.models.catalog.schema import BaseEntry, HubSource
from subllm.models.store.manifest import BaseManifest
from subllm.models.store.names import kind_of
from subllm.models.store.store import Store


def choose_name(
    base: str, entry: BaseEntry | None, fetched: Fetched, store: Store, catalog: Catalog
) -> tuple[str, BaseManifest | None]:
    """The name, and the stored base of the very same files where there is one.

    `entry` is the catalog's for them; a name of the catalog is for those alone. Raises
    UsageError when the name refers to another base.
    """
    files = _digests(fetched)
    for known in store.names():
        same = stored_base(store, known)
        if same is not None and _digests(same) == files:
            return known, same
    name = entry.name if entry is not None else derive_name(fetched.titles, fetched.config)
    if entry is None and name in catalog.bases:
        name = own_name(name)
    if name in store.names():
        raise _taken(base, name, store)
    return name, None


def check_free(target: Target, store: Store, catalog: Catalog) -> None:
    """Refuses what `choose_name` would, as far as the name of a repository tells before it is
    fetched; what the store has of that repository is no hindrance. Raises UsageError."""
    repo = next((s.repo for s in target.sources if isinstance(s, HubSource)), None)
    if target.name is not None or repo is None:
        return
    name = target.entry.name if target.entry is not None else named_size(repo.rpartition("/")[2])
    if target.entry is None and name in catalog.bases:
        name = own_name(name)
    found = stored_base(store, name)
    if found is not None and found.source != f"hub:{repo}":
        raise _taken(target.base, name, store)


def _taken(base: str, name: str, store: Store) -> UsageError:
    found = stored_base(store, name)
    by = f" by {found.source}" if found is not None else ""
    return UsageError(
        f"{base} would be {name}, which is taken{by}; name it with --base-name FAMILY:SIZE"
    )


def entry_of_file(fetched: Fetched, catalog: Catalog) -> BaseEntry | None:
    """The catalog's entry that pins the one file of a GGUF base."""
    if fetched.weights != "gguf":
        return None
    digest = fetched.files[0].digest
    for entry in catalog.bases.values():
        if any(digest == f"sha256-{getattr(s, 'sha256', None)}" for s in entry.sources):
            return entry
    return None


def stored_base(store: Store, name: str) -> BaseManifest | None:
    """The base of that name; None when there is none, or its manifest is damaged."""
    try:
        if name not in store.names() or kind_of(name) != "base":
            return None
        return store.base(name)
    except StoreError:
        return None


def _digests(files_of: Fetched | BaseManifest) -> list[str]:
    return sorted(file.digest for file in files_of.files)
