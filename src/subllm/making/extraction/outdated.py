"""What in the store is not what the same commands would make today, and which ones would.

A base is outdated when its hub repository moved; a model when its base is another one now, when
subllm chooses something else today of what was left to it, when the user's own text that it was
made from changed, or when it was pulled from where another one lies now. Nothing is changed here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from subllm.errors import (
    AcquireError,
    GatedError,
    NetworkError,
    OfflineError,
    StoreError,
    SubllmError,
)
from subllm.making.extraction.made import again, changed_texts, differences
from subllm.models.acquire.share.local_place import local_place
from subllm.models.acquire.share.place import Place, read_index
from subllm.models.catalog.loader import Catalog
from subllm.models.catalog.schema import HubSource
from subllm.models.store.manifest import (
    BaseManifest,
    MadeBy,
    ModelManifest,
    RunRecord,
    blob_digests,
)
from subllm.models.store.store import Store

_COMMIT = re.compile(r"[0-9a-f]{40}")
_Said = TypeVar("_Said")

Newest = Callable[[str, str], str]
"""(repository, revision) -> the hub's commit. Raises AcquireError (all kinds)."""

Open = Callable[[str], Place]
"""`hf:org/name[@revision]` -> what lies there. Raises as `open_place`."""


@dataclass(frozen=True)
class Outdated:
    """how      arguments of `subllm` that bring it up to date; () where nothing can
    seconds  that the same took the last time
    after    the base that must be brought up to date first
    alone    whether it is to be named for it: more would be lost than what is made again
    """

    name: str
    kind: str
    why: tuple[str, ...]
    how: tuple[str, ...]
    seconds: float | None = None
    after: str = ""
    alone: bool = False

    @property
    def command(self) -> str:
        return " ".join(("subllm", *self.how)) if self.how else ""


@dataclass
class Findings:
    """unasked: why places could not be asked; unknown: models of which it is not known how they
    were asked for, so that only their base was looked at."""

    found: list[Outdated] = field(default_factory=list)
    unasked: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def find_outdated(
    store: Store, catalog: Catalog, newest: Newest, opened: Open, names: Collection[str] = ()
) -> Findings:
    """Of `names`, or of all. Bases come before their models. Raises UnknownNameError."""
    for name in names:
        store.resolve(name)
    return _Search(store, catalog, newest, opened).run(names)


class _Search:
    def __init__(self, store: Store, catalog: Catalog, newest: Newest, opened: Open) -> None:
        self._store, self._catalog = store, catalog
        self._newest, self._opened = newest, opened
        self._names = store.names()
        self._findings = Findings()
        self._silent = False  # the network: it would not answer for another repository either

    def run(self, names: Collection[str]) -> Findings:
        manifests = {}
        for name, digest in self._names.items():
            try:
                manifests[name] = self._store.manifest(digest)
            except StoreError:
                continue  # verify tells
        wanted = [name for name in manifests if not names or name in names]
        models = {
            name: manifest
            for name, manifest in manifests.items()
            if isinstance(manifest, ModelManifest) and name in wanted
        }
        needed = {model.base.name for model in models.values()}
        moved: dict[str, Outdated] = {}
        for name, manifest in manifests.items():
            if isinstance(manifest, BaseManifest) and (name in wanted or name in needed):
                found = self._base(name, manifest)
                if found is not None:
                    moved[name] = found
        looked = (self._model(name, model, moved) for name, model in models.items())
        stale = [found for found in looked if found is not None]
        bases = {one.after for one in stale} | set(wanted)
        self._findings.found = [one for name, one in moved.items() if name in bases] + stale
        return self._findings

    def _base(self, name: str, manifest: BaseManifest) -> Outdated | None:
        repo = manifest.source.removeprefix("hub:")
        if repo == manifest.source:
            return None
        entry = self._catalog.bases.get(name)
        sources = [s for s in entry.sources if isinstance(s, HubSource)] if entry else []
        known = next((source for source in sources if source.repo == repo), None)
        record = self._record(self._names[name])
        if known is not None:
            revision, how = known.revision, ["pull", name, "--source", "hub"]
        else:
            revision = record.pulled.revision if record and record.pulled else "main"
            at = "" if revision == "main" else f"@{revision}"
            how = ["pull", f"hf:{repo}{at}", "--name", name]
        commit: str | None = revision
        if not _COMMIT.fullmatch(revision):
            commit = self._ask(repo, lambda: self._newest(repo, revision))
        if commit in (None, manifest.revision):
            return None
        why = f"{repo} moved ({manifest.revision[:8]} -> {str(commit)[:8]})"
        return Outdated(name, "base", (why,), (*how, "--refresh"))

    def _model(
        self, name: str, model: ModelManifest, moved: dict[str, Outdated]
    ) -> Outdated | None:
        record = self._record(self._names[name])
        if record is not None and record.pulled is not None:
            return self._pulled(name, model, record)
        base, why, after = model.base, [], ""
        if base.name in moved:
            why.append(f"its base {base.name} moved")
            after = base.name
        elif base.name in self._names and self._names[base.name] != base.manifest:
            why.append(f"{base.name} is another base now")
        if record is None or record.made is None:
            self._findings.unknown.append(name)
            return Outdated(name, "model", tuple(why), (), after=after) if why else None
        try:
            why += differences(record.made, base.name)
            why += changed_texts(record.made, model.language)
        except SubllmError as error:
            why.append(str(error).split(";")[0])
        tuned = record.made.arguments[0] == "tune"
        if tuned and self._names.get(model.tunings[-1].origin) != model.tunings[-1].manifest:
            why.append(f"{model.tunings[-1].origin}, which it was tuned from, is another one now")
        if not why:
            return None
        if tuned:
            why.append("tune again under another --name, as this one keeps its own")
        gone = base.name not in self._names or any(text.endswith("is gone") for text in why)
        how = () if gone or tuned else _again(record.made, name)
        alone = model.recovery is not None and not model.recovery.budget
        if alone:
            why.append("recovered further since, which is not made again")
        if base.name not in self._names:
            why.append(f"its base {base.name} is not here")
        return Outdated(name, "model", tuple(why), how, record.seconds or None, after, alone)

    def _pulled(self, name: str, model: ModelManifest, record: RunRecord) -> Outdated | None:
        pulled = record.pulled
        assert pulled is not None
        kind, _, rest = pulled.source.partition(":")
        where = f"hf:{rest}" if kind == "hub" else rest
        theirs = pulled.name or name

        def look() -> bool:
            place = self._opened(where) if kind == "hub" else local_place(Path(rest))
            if place is None:
                return False
            if place.revision and place.revision == pulled.revision:
                return False
            now = next((m for m in read_index(place).models if m.name == theirs), None)
            return now is not None and set(now.blobs) != set(blob_digests(model))

        if kind == "hub" and not self._ask(rest, look):
            return None
        if kind != "hub" and not _quietly(look):
            return None
        how = ("pull", where, "--only", theirs, "--name", name, "--replace")
        return Outdated(name, "model", (f"{where} has another one now",), how)

    def _record(self, digest: str) -> RunRecord | None:
        try:
            return self._store.run_record(digest)
        except StoreError:
            return None

    def _ask(self, repo: str, question: Callable[[], _Said]) -> _Said | None:
        """None where the hub cannot say; why, goes to the findings."""
        if self._silent:
            return None
        try:
            return question()
        except (NetworkError, OfflineError) as error:
            self._silent = True
            self._findings.unasked.append(str(error))
        except (AcquireError, GatedError, StoreError) as error:
            self._findings.unasked.append(f"{repo}: {error}")
        return None


def _again(made: MadeBy, name: str) -> tuple[str, ...]:
    """() for one whose recipe is not understood any more, which is among the reasons."""
    try:
        return again(made, name)
    except SubllmError:
        return ()


def _quietly(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except SubllmError:
        return False  # a place of a team that is not mounted, say


def in_order(found: Collection[Outdated], *, named: bool) -> list[Outdated]:
    """Those that something can be done about, each base before its models. Without `named` those
    are left out that want to be named."""
    able = [one for one in found if one.how and (named or not one.alone)]
    return sorted(able, key=lambda one: one.kind != "base")
