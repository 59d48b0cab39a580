"""From a place of shared models into the store: all that was asked for, or nothing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from subllm.errors import (
    AcquireError,
    DigestError,
    StoreError,
    SubllmError,
    UnknownNameError,
    UsageError,
)
from subllm.models.acquire.share.index import SharedModel, blob_path, check_manifest, manifest_path
from subllm.models.acquire.share.place import Place, read_index
from subllm.models.store.files import check_space, disk_errors, remove_tree
from subllm.models.store.manifest import (
    BaseManifest,
    ModelManifest,
    PulledFrom,
    RunRecord,
    encode,
    sha256_of,
)
from subllm.models.store.model_files import ModelFiles
from subllm.models.store.names import check_model_name, split_model_name
from subllm.models.store.store import Store
from subllm.models.store.verify import disagreements
from subllm.progress import Progress
from subllm.sharing.exchange.parcel import base_files

_KEY = "pull"


@dataclass(frozen=True)
class Received:
    """before: the manifest that the name referred to until now, None where it is new."""

    name: str
    digest: str
    manifest: ModelManifest
    before: str | None


@dataclass(frozen=True)
class ReceiveReport:
    """source and revision as in `PulledFrom`; bytes of blobs that came, and of those that the
    store had already."""

    source: str
    revision: str
    models: tuple[Received, ...]
    came: int
    present: int


def receive(
    place: Place,
    store: Store,
    progress: Progress,
    *,
    only: Collection[str] = (),
    name: str | None = None,
    replace: bool = False,
) -> ReceiveReport:
    """Fetch the models of `place`, or `only` those of them.

    name     for the one model that is fetched, instead of its own
    replace  take names from models that did not come from the same place

    Everything is checked before a name leads to it: digests, sizes, tables, tokenizers. Raises
    UsageError, UnknownNameError, AcquireError (all kinds), StoreVersionError, DiskFullError,
    StoreError, WeightsError; the store is then as it was, but for what a resume goes on with.
    """
    index = read_index(place)
    chosen = _chosen(index.models, only, name, place.label)
    wanted = []
    for model in chosen:
        path = manifest_path(model.manifest)
        data = place.read(path, model.manifest_bytes)
        manifest = check_manifest(model, data, index, place.label)
        manifest = _at_home(store, model, manifest, name)
        _check_free(store, manifest, place.label, replace)
        wanted.append((model, manifest))
    with store.lock(f"pull-{place.label}", on_wait=progress.note):
        blobs = {digest: size for model in chosen for digest, size in model.blobs.items()}
        came = _fetch_blobs(place, store, blobs, progress)
        known = set(store.names().values())
        for _, manifest in wanted:
            if sha256_of(encode(manifest)) in known:
                continue  # was checked when it came
            progress.note(f"{manifest.name}: checking masks, tables and tokenizer")
            _check_contents(store, manifest, place.label)
        received = [_keep(store, model, manifest, place) for model, manifest in wanted]
    return ReceiveReport(
        place.label, place.revision, tuple(received), came, sum(blobs.values()) - came
    )


def _chosen(
    models: tuple[SharedModel, ...], only: Collection[str], name: str | None, where: str
) -> list[SharedModel]:
    known = {model.name: model for model in models}
    if not models:
        raise AcquireError(f"{where} holds no models yet; push one to it")
    for one in only:
        if one not in known:
            raise UnknownNameError("model", one, known, f"{where} has {', '.join(known)}")
    chosen = [model for model in models if not only or model.name in only]
    if name is not None and len(chosen) > 1:
        raise UsageError(
            f"--name is for one model; {where} has {', '.join(known)}: choose one with --only"
        )
    return chosen


def _at_home(
    store: Store, model: SharedModel, manifest: ModelManifest, name: str | None
) -> ModelManifest:
    """Under the name that was asked for, and referring to the base of this store, where that is
    the same one: its manifest has paths of its own, and so another digest."""
    update: dict[str, object] = {}
    if name is not None and name != manifest.name:
        check_model_name(name, manifest.language)
        update |= {"name": name, "tag": split_model_name(name).tag}
    here = store.names().get(manifest.base.name)
    if here is not None and model.base_files:
        base = store.manifest(here)
        if isinstance(base, BaseManifest) and base_files(base) == model.base_files:
            update["base"] = manifest.base.model_copy(update={"manifest": here})
    return manifest.model_copy(update=update)


def _check_free(store: Store, manifest: ModelManifest, where: str, replace: bool) -> None:
    """Raises UsageError where another model has the name and may not lose it."""
    digest = store.names().get(manifest.name)
    if digest is None or replace:
        return
    try:
        old, record = store.manifest(digest), store.run_record(digest)
    except StoreError:
        return  # damaged: it is no loss
    if record is not None and record.pulled is not None and record.pulled.source == where:
        return
    if isinstance(old, ModelManifest) and old.blobs == manifest.blobs:
        return
    tag = f"{manifest.base.name}-{manifest.language}-theirs"
    raise UsageError(
        f"{manifest.name} is another model here already; --name {tag} keeps both, --replace takes "
        "its name"
    )


def _fetch_blobs(place: Place, store: Store, blobs: dict[str, int], progress: Progress) -> int:
    """Make them blobs of the store; the bytes that came. The caller holds the place's lock."""
    missing = {digest: size for digest, size in blobs.items() if not store.blobs.hold(digest)}
    if not missing:
        return 0
    partial = store.partial(f"pull-{place.label}")
    with disk_errors(partial):
        partial.mkdir(exist_ok=True)
        begun = sum(path.stat().st_size for path in partial.iterdir())
    total = sum(missing.values())
    check_space(partial, total - min(total, begun))
    progress.start(_KEY, place.label, total, "bytes")
    try:
        for digest, size in missing.items():
            target = partial / digest
            place.fetch(
                blob_path(digest), size, target, lambda count: progress.advance(_KEY, count)
            )
            _adopt(place, store, digest, size, target)
    finally:
        progress.finish(_KEY)
    with disk_errors(partial):
        remove_tree(partial)
    return total


def _adopt(place: Place, store: Store, digest: str, size: int, target: Path) -> None:
    try:
        if target.stat().st_size != size:
            raise DigestError("it has another size")
        store.blobs.adopt(target, digest)
    except DigestError as error:
        target.unlink()
        raise DigestError(
            f"{blob_path(digest)[:20]}... in {place.label} is not the file that its name says; "
            "nothing was stored, pull again, or have it pushed again"
        ) from error


def _check_contents(store: Store, manifest: ModelManifest, where: str) -> None:
    """Whether the packed files hold what the manifest says, and nothing that a kernel trips over.
    Raises AcquireError."""
    try:
        with ModelFiles(store, manifest) as files:
            problem = next(iter(disagreements(files)), None)
            files.tokenizer()
    except SubllmError as error:
        raise AcquireError(
            f"{manifest.name} of {where} is malformed ({str(error).split(';')[0]}); it was not "
            "taken, have it pushed again"
        ) from error
    if problem is not None:
        raise AcquireError(
            f"{manifest.name} of {where} is malformed ({problem}); it was not taken, have it "
            "pushed again"
        )


def _keep(store: Store, model: SharedModel, manifest: ModelManifest, place: Place) -> Received:
    digest = store.put_manifest(manifest)
    run = model.run_record() or RunRecord(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=0.0,
        peak_memory_bytes=0,
        host="",
        threads=0,
    )
    source = PulledFrom(source=place.label, revision=place.revision, name=model.name)
    told = {"host": "", "pulled": source, "made": None}
    store.put_run_record(digest, run.model_copy(update=told))
    before = store.set_ref(manifest.name, digest)
    return Received(manifest.name, digest, manifest, before if before != digest else None)
