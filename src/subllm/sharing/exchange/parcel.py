"""A model of the store as it is given away: without the paths and the host of this machine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from subllm.errors import StoreError
from subllm.models.acquire.share.index import SharedModel
from subllm.models.store.manifest import (
    BaseManifest,
    ModelManifest,
    blob_digests,
    encode,
    sha256_of,
)
from subllm.models.store.store import Store

# In "path:/home/ann/app", and in "mix:path:/home/ann/app=0.5,pack:python=0.5".
_PATH = re.compile(r"\b(path|jsonl):(.+?)(?==[0-9.e-]+(?:,|$)|$)")


@dataclass(frozen=True)
class Parcel:
    """entry: what the index says of it; data: its manifest's bytes; blobs: where they lie, by
    digest."""

    entry: SharedModel
    manifest: ModelManifest
    data: bytes
    blobs: dict[str, Path]


def parcel(store: Store, name: str) -> Parcel:
    """Raises UnknownNameError, UsageError for a base, StoreError where a blob is missing."""
    digest = store.resolve(name)
    manifest = without_paths(store.model(name))
    data = encode(manifest)
    blobs = {blob: store.blobs.path(blob) for blob in dict.fromkeys(blob_digests(manifest))}
    run = store.run_record(digest)
    if run is not None:
        run = run.model_copy(update={"host": "", "pulled": None, "made": None})
    entry = SharedModel(
        name=manifest.name,
        manifest=sha256_of(data),
        manifest_bytes=len(data),
        blobs={blob: path.stat().st_size for blob, path in blobs.items()},
        base_files=_base_files(store, manifest),
        run=run.model_dump(mode="json") if run else None,
    )
    return Parcel(entry, manifest, data, blobs)


def without_paths(manifest: ModelManifest) -> ModelManifest:
    """The same model. Of files and directories that it was made from, only the last part of the
    name is told, so its digest may be another one."""
    calibration, recovery, base = manifest.calibration, manifest.recovery, manifest.base
    if calibration is not None:
        calibration = calibration.model_copy(update={"source": public(calibration.source)})
    if recovery is not None:
        recovery = recovery.model_copy(update={"source": public(recovery.source)})
    return manifest.model_copy(
        update={
            "base": base.model_copy(update={"source": public(base.source)}),
            "calibration": calibration,
            "recovery": recovery,
            "tunings": tuple(
                record.model_copy(update={"source": public(record.source)})
                for record in manifest.tunings
            ),
        }
    )


def public(source: str) -> str:
    """A manifest's `source` without directories."""
    return _PATH.sub(lambda found: f"{found[1]}:{PurePosixPath(found[2]).name}", source)


def _base_files(store: Store, manifest: ModelManifest) -> tuple[str, ...]:
    """Of its base, if that one's manifest is here."""
    try:
        base = store.manifest(manifest.base.manifest)
    except StoreError:
        return ()
    return base_files(base) if isinstance(base, BaseManifest) else ()


def base_files(base: BaseManifest) -> tuple[str, ...]:
    """What two stores agree on of a base: the digests of its files, wherever they lie."""
    return tuple(sorted(file.digest for file in base.files))
