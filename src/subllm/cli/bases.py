"""Bases on the command line: fetched when a command needs one that is not there."""

from __future__ import annotations

from subllm.cli.context import Context
from subllm.progress import Progress
from subllm.store.manifest import BaseManifest


def ensure_base(context: Context, base: str, progress: Progress) -> str:
    """The stored name of `base`, which is pulled when the store lacks it."""
    if base in context.store.names():
        return context.store.base(base).name
    return fetch(context, base, progress).name


def fetch(
    context: Context,
    base: str,
    progress: Progress,
    *,
    source: str | None = None,
    name: str | None = None,
) -> BaseManifest:
    """Pull `base`; errors as of `acquire.pull.pull`."""
    from subllm.acquire.pull import pull

    return pull(
        base,
        context.store,
        context.catalog,
        source=source,
        name=name,
        progress=progress,
        offline=context.settings.offline,
        probe_seconds=context.settings.hub_probe_seconds,
    )
