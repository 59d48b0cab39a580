"""The weights that a model's values were rounded from: `cache/<manifest>.unrounded-<sha256>`.

A packed file in bf16, whose name says which model it is of and what its bytes must be. It is
there where a recovery made the model, and learning goes on from it; without it learning goes on
from the rounded values. Garbage collection keeps it as long as a name needs its manifest.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from subllm.errors import CorruptError
from subllm.models.store.files import disk_errors, hash_file, tree_size
from subllm.models.store.store import Store
from subllm.models.store.workspace import Workspace


def unrounded_files(workspace: Workspace, manifest: str) -> list[Path]:
    """What there is of the model with that manifest digest: one file, or none."""
    return sorted(workspace.cache.glob(f"{manifest}.unrounded-*"))


def keep_unrounded(store: Store, manifest: str, weights: Path) -> None:
    """Keep a packed file, which stays where it is too: the two share their bytes where the file
    system can. The caller is a live writer (`Store.lock`). Raises DiskFullError and StoreError."""
    workspace = store.workspace
    with disk_errors(weights):
        target = workspace.cache / f"{manifest}.unrounded-{hash_file(weights).partition('-')[2]}"
        with workspace.mutation():
            for path in unrounded_files(workspace, manifest):
                path.unlink()
            workspace.cache.mkdir(exist_ok=True)
            workspace.pin(target)
            try:
                os.link(weights, target)
            except OSError:
                partial = target.with_name(target.name + ".partial")
                try:
                    shutil.copyfile(weights, partial)
                    partial.replace(target)
                finally:
                    partial.unlink(missing_ok=True)


def drop_unrounded(store: Store, manifest: str) -> None:
    """Of a model that no name refers to any more; one that a name refers to keeps its own."""
    with store.workspace.mutation():
        if manifest not in store.names().values():
            for path in unrounded_files(store.workspace, manifest):
                path.unlink()


def unrounded(store: Store, manifest: str) -> Path | None:
    """The packed file, None where there is none. Raises CorruptError where its bytes changed."""
    for path in unrounded_files(store.workspace, manifest):
        with disk_errors(path):
            whole = hash_file(path) == "sha256-" + path.name.rpartition("-")[2]
        if not whole:
            raise CorruptError(f"{path} is damaged; remove it")
        return path
    return None


def unrounded_size(workspace: Workspace, manifest: str) -> int:
    """Bytes."""
    return sum(map(tree_size, unrounded_files(workspace, manifest)))
