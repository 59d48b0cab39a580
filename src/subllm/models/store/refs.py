"""The index of names: one JSON object, name -> manifest digest.

One file and not one file per name: names are then keys that never touch the file
system (no traversal, no case folding, no Unicode forms to think of), a listing is one
read, and a reader always sees one consistent set. Writers take turns anyway.
"""

from __future__ import annotations

import json

from subllm.errors import CorruptError, StoreError, UsageError
from subllm.models.store.blobs import check_digest
from subllm.models.store.files import disk_errors, write_atomic
from subllm.models.store.names import check_name
from subllm.models.store.workspace import Workspace


def read_refs(workspace: Workspace) -> dict[str, str]:
    """All names, sorted. CorruptError when the index is damaged."""
    with disk_errors(workspace.refs):
        if not workspace.refs.exists():
            return {}
        data = workspace.refs.read_bytes()
    try:
        raw = json.loads(data)
        return {check_name(name): check_digest(raw[name]) for name in sorted(raw)}
    except (ValueError, TypeError, UsageError, StoreError) as error:
        raise CorruptError(
            f"the index {workspace.refs} is damaged; restore it from a backup, or delete it "
            "and run 'subllm pull' and 'subllm extract' again"
        ) from error


def write_refs(workspace: Workspace, names: dict[str, str]) -> None:
    """Replace the index; must run under the mutation lock."""
    data = json.dumps(names, indent=1, sort_keys=True).encode() + b"\n"
    write_atomic(workspace.refs, data, workspace.partials)
