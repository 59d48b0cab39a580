"""What a place of shared models holds, and what of it is believed.

    subllm.json                   the index: models with digests and sizes
    manifests/sha256-....json     as in a store
    blobs/sha256-...              as in a store, each once, whatever number of models need it
    README.md, LICENSE            for people

The index comes last when models are pushed. Whoever pulls reads it first and believes nothing
of it but what digests confirm; names are looked up and never used as paths.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from subllm import __version__
from subllm.errors import (
    AcquireError,
    DigestError,
    StoreError,
    StoreVersionError,
    UsageError,
    WeightsError,
)
from subllm.kernels.sparsity.layout import LAYOUT_VERSION
from subllm.models.arch.spec import ArchSpec
from subllm.models.arch.tensors import tensor_shapes
from subllm.models.store.manifest import (
    Digest,
    ModelManifest,
    RunRecord,
    blob_digests,
    decode,
    sha256_of,
)
from subllm.models.store.names import check_model_name, kind_of

INDEX = "subllm.json"
CARD = "README.md"
LICENCE = "LICENSE"
FORMAT = 1
INDEX_BYTES = 16_000_000  # at most; learning curves lie in it
MANIFEST_BYTES = 32_000_000
_MODELS = 200
_VERSION = re.compile(r"(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?[0-9A-Za-z.+-]{0,40}")

Bytes = Annotated[int, Field(ge=0, le=1 << 50)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SharedModel(_Frozen):
    """One model of a place.

    manifest    its digest, which names the file
    blobs       bytes of each blob that it needs
    base_files  digests of the files of its base, by which another store knows the base
    run         the sidecar of its manifest, without the host; see `RunRecord`
    """

    name: str
    manifest: Digest
    manifest_bytes: Annotated[int, Field(ge=2, le=MANIFEST_BYTES)]
    blobs: dict[Digest, Bytes]
    base_files: tuple[Digest, ...] = ()
    run: dict[str, Any] | None = None

    def run_record(self) -> RunRecord | None:
        """None where there is none that this version reads: it decides nothing."""
        try:
            return RunRecord.model_validate(self.run)
        except ValidationError:
            return None


class ShareIndex(_Frozen):
    """subllm: the version that pushed last."""

    format: int = FORMAT
    subllm: str = __version__
    models: Annotated[tuple[SharedModel, ...], Field(max_length=_MODELS)]

    def with_models(self, models: tuple[SharedModel, ...]) -> ShareIndex:
        """These besides what is there; of one name the new one."""
        kept = {model.name: model for model in (*self.models, *models)}
        return ShareIndex(models=tuple(kept[name] for name in sorted(kept)))

    def encode(self) -> bytes:
        data = self.model_dump(mode="json")
        return json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"

    def files(self) -> dict[str, int]:
        """Path and bytes of every blob and manifest, each once."""
        found = {}
        for model in self.models:
            found[manifest_path(model.manifest)] = model.manifest_bytes
            found |= {blob_path(digest): size for digest, size in model.blobs.items()}
        return found


def blob_path(digest: str) -> str:
    return f"blobs/{digest}"


def manifest_path(digest: str) -> str:
    return f"manifests/{digest}.json"


def parse_index(data: bytes, where: str) -> ShareIndex:
    """Raises StoreVersionError for what a newer subllm pushed, AcquireError for what is malformed
    or names what may not be a name."""
    raw: Any = None
    try:
        raw = json.loads(data)
        if isinstance(raw, dict) and isinstance(raw.get("format"), int) and raw["format"] > FORMAT:
            raise StoreVersionError(_newer(where, raw))
        index = ShareIndex.model_validate(raw)
        names = [model.name for model in index.models]
        if len(set(names)) < len(names) or any(kind_of(name) != "model" for name in names):
            raise ValueError("a name is there twice or is no model's")
    except (ValueError, RecursionError, UsageError) as error:
        if _is_newer(raw):
            raise StoreVersionError(_newer(where, raw)) from error
        raise AcquireError(
            f"{where}: {INDEX} is malformed ({_reason(error)}); have it pushed again"
        ) from error
    return index


def check_manifest(model: SharedModel, data: bytes, index: ShareIndex, where: str) -> ModelManifest:
    """The manifest in `data`, if it is the one that the index promises, of a model that this
    version can serve, and harmless to show.

    Raises DigestError, StoreVersionError, AcquireError.
    """
    if sha256_of(data) != model.manifest:
        raise DigestError(
            f"{where}: the manifest of {model.name} has not the digest that {INDEX} announces; "
            "nothing was stored, have it pushed again"
        )
    try:
        manifest = decode(data)
        if not isinstance(manifest, ModelManifest):
            raise ValueError("it is a base's")
        _check_model(model, manifest)
    except StoreVersionError:
        raise
    except (StoreError, UsageError, WeightsError, ValueError, RecursionError) as error:
        raw = index.model_dump(include={"subllm"})
        if _is_newer(raw):
            raise StoreVersionError(_newer(where, raw)) from error
        raise AcquireError(
            f"{where}: the manifest of {model.name} is malformed ({_reason(error)}); nothing was "
            "stored, have it pushed again"
        ) from error
    return manifest


def _check_model(model: SharedModel, manifest: ModelManifest) -> None:
    """Raises ValueError, UsageError, WeightsError, StoreVersionError."""
    if manifest.layout > LAYOUT_VERSION:
        raise StoreVersionError(
            f"{model.name} has packed layout {manifest.layout}, this subllm reads "
            f"{LAYOUT_VERSION}; update subllm"
        )
    check_model_name(model.name, manifest.language)
    if manifest.name != model.name or kind_of(manifest.base.name) != "base":
        raise ValueError("it names another model")
    if set(blob_digests(manifest)) != set(model.blobs):
        raise ValueError("it needs other blobs than the index lists")
    told = {name: entry.shape for name, entry in manifest.table().items()}
    spec = ArchSpec.from_dict(manifest.arch)
    # Counted first: a table of so many layers as somebody writes down would not fit in memory.
    if spec.num_layers > len(told) or told != tensor_shapes(spec):
        raise ValueError("its tensors are not those of its architecture")
    shown = manifest.model_dump(mode="json", exclude={"prompt", "arch"})
    text = shown["base"]["licence"].pop("text")
    # What is shown must not speak to a terminal.
    if not all(map(str.isprintable, _strings(shown))) or not _plain(text):
        raise ValueError("it holds control characters")


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in _strings(part)]
    if isinstance(value, list):
        return [text for part in value for text in _strings(part)]
    return []


def _plain(text: str) -> bool:
    return all(line.isprintable() for line in re.split(r"[\n\r\t\f]", text))


def _is_newer(raw: Any) -> bool:
    theirs, ours = _parts(_version(raw)), _parts(__version__)
    return theirs is not None and ours is not None and theirs > ours


def _newer(where: str, raw: Any) -> str:
    version = _version(raw)
    said = f"subllm {version}" if _parts(version) else "a newer subllm"
    return f"{where} was pushed by {said}, this is {__version__}; update subllm, then pull again"


def _version(raw: Any) -> str:
    return str(raw.get("subllm", "")) if isinstance(raw, dict) else ""


def _parts(version: str) -> tuple[int, ...] | None:
    match = _VERSION.fullmatch(version)
    return tuple(int(part or 0) for part in match.groups()) if match else None


def _reason(error: Exception) -> str:
    """Its first line, without what might speak to a terminal."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        text = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    else:
        text = str(error).split(";")[0]
    line = (text.splitlines() or ["it cannot be read"])[0][:160]
    return "".join(letter if letter.isprintable() else "?" for letter in line)
