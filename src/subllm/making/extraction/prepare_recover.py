"""From the name of a stored sub-model to all that its recovery needs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from subllm.errors import CorruptError, LayoutError, StoreError, UsageError
from subllm.kernels.sparsity.layout import LAYOUT_VERSION
from subllm.kernels.sparsity.packed_file import PackedReader
from subllm.making.calibration.load import TextOrigin, load_calibration, load_heldout, spec_of
from subllm.making.calibration.render import Renderer
from subllm.making.extraction.defaults import DEFAULT_SAMPLES, HELDOUT_SEQUENCES
from subllm.making.extraction.device import choose_device
from subllm.making.extraction.plan import value_type
from subllm.making.extraction.prepare import HELDOUT_LENGTH
from subllm.making.extraction.quantiser import needs_of
from subllm.making.extraction.recovering import (
    NARROW,
    RecoveryJob,
    check_job,
    device_for,
    fitting_job,
    open_teacher,
    recipe_of,
    same_masks,
)
from subllm.making.extraction.recovery_text import Mixed, load_recovery_data
from subllm.making.recovery.budget import Budget
from subllm.making.recovery.compute import choose_compute
from subllm.making.recovery.recipe import Recipe
from subllm.models.acquire.pull import base_files
from subllm.models.catalog.loader import Catalog
from subllm.models.store.manifest import (
    BaseManifest,
    MadeBy,
    ModelManifest,
    canonical_json,
    sha256_of,
)
from subllm.models.store.recovery_state import owner_of, state_path
from subllm.models.store.store import Store
from subllm.models.store.unrounded import unrounded
from subllm.models.text.tokenizer import Tokenizer
from subllm.models.weights.open import open_weights
from subllm.models.weights.reader import WeightReader
from subllm.progress import Progress

Tokens = npt.NDArray[np.int32]


@dataclass(frozen=True)
class RecoverOptions:
    """As those of an extraction. calibration: where the text comes from, "" for where the
    sub-model's came from, or `default_source` where that was the language's pack. data: text that
    joins it, with its share, as `parse_beside` reads it. teacher: a base that teaches holes instead
    of its own."""

    calibration: str = ""
    data: str = ""
    teacher: str = ""
    seed: int = 0
    device: str = "auto"
    compute: str = "auto"
    recipe: Recipe | None = None
    batch: int = 2
    offline: bool = False


@dataclass(frozen=True)
class PreparedRecovery:
    """Everything that `recover` and `tune` need.

    name             what is to refer to what is better
    served           the manifest that it refers to now, None for none
    origin           the name of the model that learns on
    digest, manifest its, which lend masks and first weights
    fitted           calibration tokens for values that are fitted to them
    identity         what a state must have been of to be gone on with
    earlier          tokens that the model has learned from, in the same way
    unrounded        what the values of `manifest` were rounded from, to begin with instead of
                     them; None where that is not there
    made             how to ask for a tuning again
    """

    name: str
    served: str | None
    origin: str
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
    earlier: int = 0
    unrounded: Path | None = None
    made: MadeBy | None = None


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
    origin = Origin.open(store, name, budget, options, catalog, progress)
    manifest, reader = origin.manifest, origin.reader
    recipe = recipe_of(options.recipe, reader.spec, manifest.values)
    source = options.calibration or origin.calibration
    if source == f"pack:{manifest.language}":
        source = ""  # recovery has more to learn from than that
    teacher = open_teacher(store, options.teacher, manifest.base.manifest, origin.tokenizer)
    data = load_recovery_data(
        source, recipe, TextOrigin(manifest.language, catalog, options.offline, progress),
        origin.tokenizer, manifest.prompt, options.seed,
        Mixed(joining=options.data, holes=teacher is not None),
    )  # fmt: skip
    job, device, compute = origin.fit(RecoveryJob(budget, recipe, data, teacher))
    fitted = origin.fitted(options.calibration)
    heldout = origin.heldout(source)
    identity = origin.identity(job)
    owner = owner_of(state_path(store.workspace, name))
    return PreparedRecovery(
        name=name,
        served=origin.digest,
        origin=name,
        digest=origin.digest,
        manifest=manifest,
        reader=reader,
        job=job,
        fitted=fitted,
        heldout=heldout,
        device=device,
        compute=compute,
        batch=options.batch,
        identity=identity,
        resumes=(
            owner is not None and owner.identity == identity and origin.digest in owner.manifests
        ),
        earlier=manifest.recovery.tokens if manifest.recovery else 0,
        unrounded=origin.unrounded(),
    )


@dataclass(frozen=True)
class Origin:
    """A stored sub-model that is to learn on, with its base opened. calibration: what reads again
    where its calibration came from, "" where it had none."""

    store: Store
    name: str
    digest: str
    manifest: ModelManifest
    reader: WeightReader
    tokenizer: Tokenizer
    device: torch.device
    calibration: str
    options: RecoverOptions
    catalog: Catalog
    progress: Progress

    @classmethod
    def open(
        cls,
        store: Store,
        name: str,
        budget: Budget,
        options: RecoverOptions,
        catalog: Catalog,
        progress: Progress,
    ) -> Origin:
        """Raises UsageError for a model that cannot learn on, or nothing to do."""
        digest = store.resolve(name)
        manifest = store.model(name)
        if budget.off:
            raise UsageError(
                "--for off leaves nothing to do; say for how long, such as 2h or 2Mtok"
            )
        if all(entry.pattern == "dense" for entry in manifest.tensors):
            raise UsageError(
                f"{name} is dense, there is nothing to recover; 'subllm extract' makes a sub-model"
            )
        if manifest.layout != LAYOUT_VERSION:
            raise UsageError(f"{name} is packed in an older layout; extract it again")
        reader, tokenizer = _open_base(store, name, manifest)
        record = manifest.calibration
        return cls(
            store, name, digest, manifest, reader, tokenizer, choose_device(options.device),
            spec_of(record.source if record else ""), options, catalog, progress,
        )  # fmt: skip

    def fit(self, job: RecoveryJob) -> tuple[RecoveryJob, torch.device, str]:
        """The job as memory allows it, where, and what it is computed in. Raises as
        `check_job`."""
        spec, device, wanted = self.reader.spec, self.device, self.options.compute
        compute = choose_compute(wanted, spec, device)
        entries = self.manifest.tensors
        kept = sum(e.kept for e in entries if e.blob == "own" and e.pattern != "dense")
        if self.options.device == "auto":
            device, why = device_for(self.reader, job, kept, device, compute)
            if why:
                self.progress.note(why)
                compute = choose_compute(wanted, spec, device)
        fitted = fitting_job(self.reader, job, kept, device, compute)
        if fitted != job:
            self.progress.note(NARROW)
        check_job(self.reader, fitted, kept, device, compute)
        return fitted, device, compute

    def fitted(self, source: str = "") -> Tokens | None:
        """Calibration tokens of `source`, by default its own, where its values want any."""
        calibration, manifest = self.manifest.calibration, self.manifest
        if calibration is None or not needs_of(value_type(manifest.values)):
            return None
        return load_calibration(
            source or self.calibration,
            self._origin(manifest.language),
            Renderer(self.tokenizer, manifest.prompt),
            samples=calibration.samples or DEFAULT_SAMPLES,
            seq_len=calibration.seq_len,
            seed=calibration.seed,
        ).tokens

    def _origin(self, language: str) -> TextOrigin:
        return TextOrigin(language, self.catalog, self.options.offline, self.progress)

    def heldout(self, source: str) -> dict[str, Tokens]:
        """By domain: of its language, from `source` where that has no pack, and of all that it
        was measured on."""
        language = self.manifest.language
        return {
            domain: load_heldout(
                self._origin(domain),
                Renderer(self.tokenizer, self.manifest.prompt),
                sequences=HELDOUT_SEQUENCES,
                seq_len=HELDOUT_LENGTH,
                spec=source if domain == language else "",
            )
            for domain in dict.fromkeys((language, *self.manifest.perplexity))
        }

    def unrounded(self) -> Path | None:
        """What its values were rounded from, under the same masks; None where that is missing,
        and where it is damaged, which is told."""
        store = self.store
        try:
            path = unrounded(store, self.digest)
            if path is None:
                return None
            with (
                PackedReader(path) as weights,
                PackedReader(store.blobs.path(self.manifest.blobs.own)) as packed,
            ):
                same_masks(weights, packed)
        except (CorruptError, LayoutError) as error:
            self.progress.note(
                f"what the values of {self.name} were rounded from cannot be used: {error}"
            )
            return None
        return path

    def identity(self, job: RecoveryJob, **more: str) -> str:
        """Base, masks, recipe and texts; not what it is computed in, as masters are the same."""
        masks = hashlib.sha256()
        with PackedReader(self.store.blobs.path(self.manifest.blobs.own)) as packed:
            for name in packed.table:
                tensor = packed.tensor(name)
                masks.update(f"{name} {tensor.shape} {tensor.pattern}\n".encode())
                if tensor.mask is not None:
                    masks.update(np.ascontiguousarray(tensor.mask).view(np.uint8).data)
        return sha256_of(
            canonical_json(
                {
                    "base": self.manifest.base.manifest,
                    "masks": masks.hexdigest(),
                    "recipe": job.recipe.identity(),
                    "text": job.data.learned.digest,
                    "heldout": job.data.heldout.digest,
                    **({"teacher": job.teacher.digest} if job.teacher else {}),
                    **more,
                }
            )
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
