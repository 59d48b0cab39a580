"""Bases on the command line: fetched when a command needs one that is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from subllm.errors import UsageError

if TYPE_CHECKING:
    from subllm.cli.context import Context
    from subllm.models.store.manifest import BaseManifest
    from subllm.progress import Progress

BASE_HELP = (
    "A name of 'subllm list' or of its --catalog, hf:org/name, a directory of safetensors, "
    "or a .gguf file; fetched when missing."
)
BASE_NAME_HELP = "Name of a base that comes without one; by default what it calls itself."


def ensure_base(context: Context, base: str, progress: Progress, name: str | None = None) -> str:
    """The stored name of `base`, which is pulled when the store lacks it, as `name` if given.
    Raises UsageError for a new name of a base that has one of its own, and as `fetch`."""
    if base in context.store.names():
        found = context.store.base(base).name
        if name in (None, "", found):
            return found
        if base not in context.catalog.bases:
            raise UsageError(f"{base} is a name already; leave --base-name out")
    return fetch(context, base, progress, name=name or None).name


def fetch(
    context: Context,
    base: str,
    progress: Progress,
    *,
    source: str | None = None,
    name: str | None = None,
    refresh: bool = False,
) -> BaseManifest:
    """Pull `base`; errors as of `acquire.pull.pull`."""
    from subllm.models.acquire.pull import pull
    from subllm.models.acquire.reach import Reach

    return pull(
        base,
        context.store,
        context.catalog,
        name=name,
        refresh=refresh,
        reach=Reach(
            source=source,
            offline=context.settings.offline,
            probe_seconds=context.settings.hub_probe_seconds,
        ),
        progress=progress,
    )
