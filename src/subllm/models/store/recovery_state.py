"""What the recovery of a model needs to go on later: `recovery/<name>/` in the store.

Beside it lies `owner.json`, which says whose it is: a name, and the manifests that the name
may refer to meanwhile. While it refers to one of them, garbage collection spares the state; and
while a name that is yet to be made is free, and its origin's model unchanged. When it refers to
another model or is gone, the state is garbage.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from subllm.models.store.files import disk_errors, tree_size, write_atomic
from subllm.models.store.store import Store
from subllm.models.store.workspace import Workspace, slug

_OWNER = "owner.json"


@dataclass(frozen=True)
class Owner:
    """identity is what the state can go on with: another one cannot use it; earlier: tokens
    that the model had learned from before this state began; origin, origin_manifest: the model
    that began to learn, which keeps the state while its name does not exist yet."""

    name: str
    identity: str
    manifests: tuple[str, ...]
    earlier: int = 0
    origin: str = ""
    origin_manifest: str = ""


def state_path(workspace: Workspace, name: str) -> Path:
    """Where the state of `name` lies, if there is one."""
    return workspace.recoveries / slug(name)


def owner_of(path: Path) -> Owner | None:
    """None where nobody is known to own the state at `path`."""
    try:
        raw = json.loads((path / _OWNER).read_text())
        return Owner(
            str(raw["name"]),
            str(raw["identity"]),
            tuple(map(str, raw["manifests"])),
            int(raw["earlier"]),
            str(raw.get("origin", "")),
            str(raw.get("origin_manifest", "")),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_owned(path: Path, names: Mapping[str, str]) -> bool:
    """Whether a name still refers to a model that the state at `path` belongs to."""
    owner = owner_of(path)
    if owner is None:
        return False
    if owner.name in names:
        return names[owner.name] in owner.manifests
    return names.get(owner.origin) == owner.origin_manifest


def claim(store: Store, owner: Owner) -> Path:
    """Make `owner` that of its name's state, whatever lies there, and return the state's
    directory. The caller is a live writer (`Store.lock`). Raises
    DiskFullError and StoreError."""
    path = state_path(store.workspace, owner.name)
    with store.workspace.mutation():
        store.workspace.pin(path)
        with disk_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        data = json.dumps(asdict(owner)).encode()
        write_atomic(path / _OWNER, data, store.workspace.partials)
    return path


def state_size(workspace: Workspace, name: str, names: Mapping[str, str]) -> int:
    """Bytes of the state of `name`, 0 without one that is its own; `names` as `Store.names`."""
    path = state_path(workspace, name)
    return tree_size(path) if is_owned(path, names) else 0
