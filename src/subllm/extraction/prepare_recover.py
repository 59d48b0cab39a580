"""From the name of a stored sub-model to all that its recovery needs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from subllm.acquire.pull import base_files
from subllm.calibration.load import load_calibration, load_heldout, spec_of
from subllm.catalog.loader import Catalog
from subllm.errors import StoreError, UsageError
from subllm.extraction.defaults import DEFAULT_SAMPLES, HELDOUT_SEQUENCES
from subllm.extraction.device import choose_device
from subllm.extraction.plan import value_type
from subllm.extraction.prepare import HELDOUT_LENGTH
from subllm.extraction.quantiser import needs_of
from subllm.extraction.recovering import (
    RecoveryJob,
    check_job,
)
from subllm.extraction.recovery_text import load_recovery_data, recipe_for
from subllm.progress import Progress
from subllm.recovery.budget import Budget
from subllm.recovery.compute import choose_compute
from subllm.recovery.recipe import Recipe
from subllm.sparsity.layout import LAYOUT_VERSION
from subllm.sparsity.packed_file import PackedReader
from subllm.store.manifest import (
    BaseManifest,
    ModelManifest,
    canonical_json,
    sha256_of,
)
from subllm.store.recovery_state import owner_of, state_path
from subllm.store.store import Store
from subllm.text.tokenizer import Tokenizer
from subllm.weights.open import open_weights
from subllm.weights.reader import WeightReader

Tokens = npt.NDArray[np.int32]


@dataclass(frozen=True)
class RecoverOptions:
    """As those of an extraction. calibration: where the text comes from, "" for where the
    sub-model's came from, or `default_source` where that was the language's pack."""

    calibration: str = ""
    seed: int = 0
    device: str = "auto"
    compute: str = "auto"
    recipe: Recipe | None = None
    batch: int = 2
    offline: bool = False


@dataclass(frozen=True)
class PreparedRecovery:
    """Everything `recover` needs. fitted: calibration tokens for values that are fitted to
    them; identity: what a state must have been of to be gone on with."""

    name: str
    digest: str
    manifest: ModelManifest
    reader: WeightReader
    job: RecoveryJob
    fitted: Tokens | None
    heldout: dict[str, Tokens]
    device: torch.device
    compute: str
    batch: int
    identity: str
    resumes: bool


def prepare_recover(
    store: Store,
    name: str,
    budget: Budget,
    options: RecoverOptions,
    catalog: Catalog,
    progress: Progress,
) -> PreparedRecovery:
    """Validate and tokenize. Writes nothing.

    Raises UsageError and its kin: a model without masks, a base that is not here any more, text
    without enough tokens, too little memory; UnknownNameError.
    """
    digest = store.resolve(name)
    manifest = store.model(name)
    if budget.off:
        raise UsageError("--for off leaves nothing to do; say for how long, such as 2h or 2Mtok")
    if all(entry.pattern == "dense" for entry in manifest.tensors):
        raise UsageError(
            f"{name} is dense, there is nothing to recover; 'subllm extract' makes a sub-model"
        )
    if manifest.layout != LAYOUT_VERSION:
        raise UsageError(f"{name} is packed in an older layout; extract it again")
    reader, tokenizer = _open_base(store, name, manifest)
    device = choose_device(options.device)
    recipe = options.recipe or recipe_for(reader.spec)
    calibration = manifest.calibration
    chosen = spec_of(calibration.source if calibration else "")
    source = options.calibration or chosen
    if source == f"pack:{manifest.language}":
        source = ""  # recovery has more to learn from than that
    data = load_recovery_data(
        source, recipe, language=manifest.language, tokenizer=tokenizer, prompt=manifest.prompt,
        seed=options.seed, catalog=catalog, offline=options.offline, progress=progress,
    )  # fmt: skip
    job = RecoveryJob(budget, recipe, data)
    compute = choose_compute(options.compute, reader.spec, device)
    kept = sum(e.kept for e in manifest.tensors if e.blob == "own" and e.pattern != "dense")
    check_job(reader, job, kept, device, compute)
    fitted = None
    if calibration is not None and needs_of(value_type(manifest.values)):
        fitted = load_calibration(
            options.calibration or chosen, language=manifest.language, tokenizer=tokenizer,
            prompt=manifest.prompt, samples=calibration.samples or DEFAULT_SAMPLES,
            seq_len=calibration.seq_len, seed=calibration.seed, catalog=catalog,
            offline=options.offline, progress=progress,
        ).tokens  # fmt: skip
    heldout = {
        domain: load_heldout(
            domain, tokenizer=tokenizer, prompt=manifest.prompt, sequences=HELDOUT_SEQUENCES,
            seq_len=HELDOUT_LENGTH, spec=source if domain == manifest.language else "",
            catalog=catalog, offline=options.offline, progress=progress,
        )
        for domain in dict.fromkeys((manifest.language, *manifest.perplexity))
    }  # fmt: skip
    identity = _identity(store, manifest, job)
    owner = owner_of(state_path(store.workspace, name))
    return PreparedRecovery(
        name=name,
        digest=digest,
        manifest=manifest,
        reader=reader,
        job=job,
        fitted=fitted,
        heldout=heldout,
        device=device,
        compute=compute,
        batch=options.batch,
        identity=identity,
        resumes=owner is not None and owner.identity == identity and digest in owner.manifests,
    )


def _open_base(store: Store, name: str, manifest: ModelManifest) -> tuple[WeightReader, Tokenizer]:
    """Weights of the very base that the sub-model was made from. Raises UsageError where only
    another one is here, or none."""
    base = manifest.base
    how = f"'subllm pull {base.name}' fetches it"
    try:
        found = store.manifest(base.manifest)
        assert isinstance(found, BaseManifest)
        reader = open_weights(base_files(found, store))
    except StoreError as error:
        other = store.names().get(base.name)
        if other is not None and other != base.manifest:
            raise UsageError(
                f"{name} was made from {base.source}; the {base.name} in the store is "
                f"{store.base(base.name).source}, another base, which cannot teach it"
            ) from error
        raise UsageError(
            f"{name} learns from {base.name}, whose weights are not in the store any more; {how}"
        ) from error
    return reader, Tokenizer.from_files(reader.tokenizer_files())


def _identity(store: Store, manifest: ModelManifest, job: RecoveryJob) -> str:
    """Base, masks, recipe and texts; not what it is computed in, as masters are the same."""
    masks = hashlib.sha256()
    with PackedReader(store.blobs.path(manifest.blobs.own)) as packed:
        for name in packed.names():
            tensor = packed.tensor(name)
            masks.update(f"{name} {tensor.shape} {tensor.pattern}\n".encode())
            if tensor.mask is not None:
                masks.update(np.ascontiguousarray(tensor.mask).view(np.uint8).data)
    return sha256_of(
        canonical_json(
            {
                "base": manifest.base.manifest,
                "masks": masks.hexdigest(),
                "recipe": job.recipe.identity(),
                "text": job.data.learned.digest,
                "heldout": job.data.heldout.digest,
            }
        )
    )
