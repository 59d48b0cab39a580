"""What may be deleted: marking from names and live writers, then sweeping.

Who needs what:
- a base's name: its manifest, the blobs of its files and what was measured of it;
- a model's name: its manifest, sidecar, own, shared and tokenizer blobs, the compact form
  of its tokenizer, what its values were rounded from, and the manifest of its base
  (provenance, licence) but not that base's weights. So a base may be removed while models
  made from it go on working;
- a name's recovery that can go on: its state, while the name refers to the model that it
  recovers (`recovery_state`);
- a live writer: what it pinned, and what a pinned manifest needs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from subllm.errors import StoreError
from subllm.models.store.files import disk_errors, remove_tree, tree_size
from subllm.models.store.locks import live_pins
from subllm.models.store.manifest import BaseManifest, blob_digests
from subllm.models.store.recovery_state import is_owned, state_path
from subllm.models.store.refs import read_refs, write_refs
from subllm.models.store.store import Store
from subllm.models.store.unrounded import unrounded_files


@dataclass(frozen=True)
class GcReport:
    """What `gc` deleted, or would delete. Paths are relative to the store's root."""

    dry_run: bool
    freed: int  # bytes
    blobs: tuple[str, ...]
    manifests: tuple[str, ...]
    caches: tuple[str, ...]  # forms of blobs that load faster, what values were rounded from, ...
    partials: tuple[str, ...]  # unfinished downloads, extractions and temporary files
    recoveries: tuple[str, ...]  # what recoveries of models that are gone would go on with
    spared: tuple[str, ...]  # needed by no name, but by a process that is writing now


@dataclass(frozen=True)
class RemoveReport:
    """What removing a name freed, and what stays because others need it too."""

    name: str
    digest: str
    freed: int  # bytes
    shared: int  # bytes of blobs that stay
    shared_with: tuple[str, ...]  # names that need those


def needs(store: Store, digest: str) -> set[Path]:
    """Every file that the manifest `digest` needs, itself included."""
    manifest = store.manifest(digest)
    paths = {store.manifest_path(digest), store.run_record_path(digest)}
    paths.update(store.blobs.directory / blob for blob in blob_digests(manifest))
    if isinstance(manifest, BaseManifest):
        paths.update(store.workspace.cache.glob(f"{digest}.measured-*.json"))
    else:
        paths.add(store.manifest_path(manifest.base.manifest))
        paths.add(store.workspace.compact_tokenizer(manifest.blobs.tokenizer))
        paths.update(unrounded_files(store.workspace, digest))
    return paths


def gc(store: Store, dry_run: bool = False) -> GcReport:
    """Delete (or with `dry_run` only list) what no name and no live writer needs.

    Refused with StoreError while a named manifest is damaged: what it needs is unknown.
    A dry run changes nothing and works on a read-only store too.
    """
    workspace = store.workspace
    if not workspace.locks.exists():
        return GcReport(dry_run, 0, (), (), (), (), (), ())
    # Where no lock can be taken, no writer of ours can start meanwhile.
    unlocked = dry_run and not os.access(workspace.locks, os.W_OK)
    with nullcontext() if unlocked else workspace.mutation(), disk_errors(workspace.root):
        # Before the pins are read: a writer pins an unfinished file, then makes it.
        partials = _entries(workspace.partials)
        pinned, dead = _pinned(store)
        named: set[Path] = set()
        names = read_refs(workspace)
        for name, digest in names.items():
            named |= _needs_of_name(store, name, digest)
        garbage = [path for path in _objects(store) if path not in named]
        spared = [path for path in garbage if path in pinned]
        unfinished = [path for path in partials if not _starts(path, pinned)]
        doomed = [path for path in garbage if path not in pinned]
        orphans = [
            path
            for path in _entries(workspace.recoveries)
            if path not in pinned and not is_owned(path, names)
        ]
        freed = sum(map(tree_size, [*doomed, *unfinished, *orphans]))
        if not dry_run:
            for path in [*doomed, *unfinished, *orphans, *dead]:
                remove_tree(path)
    relative = [workspace.relative(path) for path in doomed]
    return GcReport(
        dry_run=dry_run,
        freed=freed,
        blobs=tuple(path for path in relative if path.startswith("blobs/")),
        manifests=tuple(path for path in relative if path.startswith("manifests/")),
        caches=tuple(path for path in relative if path.startswith("cache/")),
        partials=tuple(workspace.relative(path) for path in unfinished),
        recoveries=tuple(workspace.relative(path) for path in orphans),
        spared=tuple(workspace.relative(path) for path in spared),
    )


def remove(store: Store, name: str) -> RemoveReport:
    """Drop `name`, then delete what only it needed.

    UnknownNameError when there is none. A damaged manifest can be removed as well; its
    blobs are then left to `gc`, and so they are while another manifest is damaged.
    """
    store.resolve(name)  # an unknown name changes nothing, not even an empty directory
    with store.workspace.mutation():
        digest = store.resolve(name)
        names = read_refs(store.workspace)
        del names[name]
        mine = _needs_or_itself(store, digest)
        state = state_path(store.workspace, name)
        if state.exists():
            mine.add(state)
        users, all_known = _users(store, names, mine)
        pinned, _ = _pinned(store)
        write_refs(store.workspace, names)
        staying = {path for path in mine if path in pinned or users.get(path)}
        doomed = mine - staying
        freed = 0
        if all_known:
            with disk_errors(store.root):
                freed = sum(map(remove_tree, doomed))
    blobs = [path for path in staying if path.parent == store.blobs.directory]
    return RemoveReport(
        name=name,
        digest=digest,
        freed=freed,
        shared=sum(map(tree_size, blobs)),
        shared_with=tuple(sorted({user for path in blobs for user in users.get(path, ())})),
    )


def _users(
    store: Store, names: dict[str, str], paths: set[Path]
) -> tuple[dict[Path, list[str]], bool]:
    """Which of `names` need each of `paths`, and whether every name's needs are known."""
    users: dict[Path, list[str]] = {}
    all_known = True
    for name, digest in names.items():
        try:
            needed = needs(store, digest)
        except StoreError:
            all_known = False
            continue
        for path in needed & paths:
            users.setdefault(path, []).append(name)
    return users, all_known


def _needs_of_name(store: Store, name: str, digest: str) -> set[Path]:
    try:
        return needs(store, digest)
    except StoreError as error:
        raise StoreError(
            f"nothing was collected, as the manifest of {name} is damaged or from a newer "
            f"version; run 'subllm verify {name}', then remove it or make it again"
        ) from error


def _needs_or_itself(store: Store, digest: str) -> set[Path]:
    try:
        return needs(store, digest)
    except StoreError:
        return {store.manifest_path(digest), store.run_record_path(digest)}


def _pinned(store: Store) -> tuple[set[Path], list[Path]]:
    """What live writers need, and the files of dead ones."""
    lines, dead = live_pins(store.workspace.locks)
    pinned = {store.root / line for line in lines}
    for path in [path for path in pinned if path.parent == store.workspace.manifests]:
        digest = path.name.partition(".")[0]
        if store.manifest_path(digest).exists():
            pinned |= _needs_or_itself(store, digest)
    return pinned, dead


def _objects(store: Store) -> Iterable[Path]:
    yield from _entries(store.workspace.blobs)
    yield from _entries(store.workspace.manifests)
    yield from _entries(store.workspace.cache)


def _entries(directory: Path) -> list[Path]:
    return sorted(directory.iterdir()) if directory.exists() else []


def _starts(path: Path, pinned: set[Path]) -> bool:
    """Whether an unfinished file is pinned, itself or as `<pinned>.<suffix>`."""
    return path in pinned or path.parent / path.name.partition(".")[0] in pinned
