"""From options to a plan: opens the base, reads calibration, looks into the cache."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial

import numpy as np
import numpy.typing as npt
import torch

from subllm.errors import UsageError
from subllm.kernels.sparsity.pattern import Pattern
from subllm.languages import GENERAL
from subllm.making.calibration.load import TextOrigin, load_calibration, load_heldout
from subllm.making.calibration.render import Renderer
from subllm.making.calibration.source import CalibrationData
from subllm.making.extraction.card import card_bytes, fits_by_block, fitting_batch
from subllm.making.extraction.compute import Choice, choose, computes
from subllm.making.extraction.defaults import (
    DEFAULT_SAMPLES,
    FAST_SECONDS,
    HELDOUT_SEQUENCES,
    fast_counts,
)
from subllm.making.extraction.device import choose_card, choose_device
from subllm.making.extraction.estimate import Estimate, LearnedMasks, Rates, Reading, estimate
from subllm.making.extraction.memory import require_memory
from subllm.making.extraction.plan import (
    ExtractionPlan,
    RecoveryPlan,
    calibration_record,
    started,
    value_type,
)
from subllm.making.extraction.quantiser import needs_of
from subllm.making.extraction.recovering import (
    NARROW,
    RecoveryJob,
    check_job,
    device_for,
    fitting_job,
    open_teacher,
    recipe_of,
)
from subllm.making.extraction.recovery_text import Mixed, load_recovery_data
from subllm.making.pruning.allocation import Allocation
from subllm.making.pruning.maskllm import MaskLlm, candidates
from subllm.making.pruning.method import WHOLE_MODEL, Method, Need
from subllm.making.pruning.parameter import Number
from subllm.making.pruning.registry import get_method
from subllm.making.recovery.budget import parse_budget
from subllm.making.recovery.compute import DTYPES
from subllm.making.recovery.recipe import Recipe
from subllm.models.acquire.pull import base_files
from subllm.models.catalog.loader import Catalog
from subllm.models.store.manifest import (
    BaseManifest,
    MadeBy,
    MethodRecord,
    ModelManifest,
    sha256_of,
)
from subllm.models.store.names import model_name
from subllm.models.store.store import Store
from subllm.models.text.tokenizer import Tokenizer
from subllm.models.weights.open import open_weights
from subllm.models.weights.reader import WeightReader
from subllm.progress import Progress
from subllm.quantities import size_text

HELDOUT_LENGTH = 512
# Needs that outweigh all else in memory.
_LARGE = WHOLE_MODEL | {Need.FULL_HESSIAN}


@dataclass(frozen=True)
class ExtractOptions:
    """What a user may choose. seq_len in tokens; evaluate: further held-out domains;
    heldout: own held-out tokens by domain, int32 [sequences, length], instead of packs;
    recover: as `recovery.budget.parse_budget` takes it; recipe: None for the default;
    keep_unrounded: what a recovery learned, for another one to go on from."""

    language: str
    method: str = "wanda"
    method_params: Mapping[str, str | Number] = field(default_factory=dict)
    pattern: str = "8:16"
    allocation: Allocation | None = None  # instead of `pattern`, where matrices differ
    values: str = "int8"
    head: str = "int8"
    calibration: str = ""  # empty: the language's own pack
    samples: int | None = None  # DEFAULT_SAMPLES; with `fast` what FAST_SECONDS allow
    seq_len: int = 512
    seed: int = 0
    device: str = "auto"
    compute: str = "auto"  # or a dtype, or "int8"; see `compute.computes`
    fast: bool = False  # few sequences and int8 products will do
    recover: str = "off"
    recipe: Recipe | None = None
    teacher: str = ""  # a base that teaches holes instead of its own
    keep_unrounded: bool = True
    batch: int = 2
    evaluate: tuple[str, ...] = ()
    heldout: Mapping[str, npt.NDArray[np.int32]] | None = None
    tag: str = ""
    name: str = ""
    offline: bool = False  # calibration sets of the hub come from its cache only
    made: MadeBy | None = None  # how to ask for it again


@dataclass
class Prepared:
    """Everything `extract` needs. `cached` is an equal plan's result, if stored."""

    name: str
    plan: ExtractionPlan
    base: BaseManifest
    reader: WeightReader
    tokenizer: Tokenizer
    method: Method
    tokens: npt.NDArray[np.int32] | None
    heldout: dict[str, npt.NDArray[np.int32]]
    options: ExtractOptions
    device: torch.device
    estimate: Estimate
    general: npt.NDArray[np.int32] | None = None  # text of no one language, where it is needed
    recovery: RecoveryJob | None = None
    recovery_bytes: int = 0  # of the device's memory; 0 where the result is stored already
    cached: tuple[str, ModelManifest] | None = None
    replaces: ModelManifest | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def texts(self) -> dict[Need, npt.NDArray[np.int32]]:
        """What a method of the whole model learns from, by what it needs."""
        texts = {Need.GRADIENTS: self.tokens, Need.GENERAL_GRADIENTS: self.general}
        return {need: tokens for need, tokens in texts.items() if tokens is not None}


def open_base(store: Store, name: str) -> tuple[str, BaseManifest, WeightReader, Tokenizer]:
    """The stored base `name`: manifest digest, manifest, weights, tokenizer."""
    digest = store.resolve(name)
    manifest = store.manifest(digest)
    if not isinstance(manifest, BaseManifest):
        raise UsageError(f"{name} is a sub-model, not a base; name its base instead")
    reader = open_weights(base_files(manifest, store))
    return digest, manifest, reader, Tokenizer.from_files(reader.tokenizer_files())


def prepare(
    store: Store,
    base: str,
    options: ExtractOptions,
    catalog: Catalog,
    progress: Progress | None = None,
) -> Prepared:
    """Validate, tokenize and plan. Writes nothing.

    Raises UsageError and its kin for bad options, ExtractionError for a base that the
    chosen pattern does not fit.
    """
    values, head = value_type(options.values), value_type(options.head)
    few = options.samples is not None and options.samples < 1
    if few or options.seq_len < 8 or options.batch < 1:
        raise UsageError("samples of a calibration are 1 at least, and seq_len is 8 at least")
    allocation = options.allocation or Allocation(Pattern.parse(options.pattern))
    if allocation.uniform and allocation.default.kind == "dense":
        raise UsageError("a dense model is not extracted; use 'subllm add'")
    method = get_method(options.method, options.method_params)
    choose_device(options.device)  # what is wrong with that is said first
    digest, manifest, reader, tokenizer = open_base(store, base)
    allocation.check(reader.spec.matrices())
    learned = _learned(method, allocation)
    if options.seq_len > reader.spec.context_length:
        raise UsageError(
            f"seq_len {options.seq_len} is longer than the model's context, "
            f"{reader.spec.context_length} tokens"
        )
    budget = parse_budget(options.recover)
    if options.fast and not budget.off:
        raise UsageError("a fast calibration leaves recovery out; leave out one of them")
    if options.teacher and budget.off:
        raise UsageError("a teacher is for recovery, which is off here; leave --teacher out")
    heldout = _heldout(options, tokenizer, manifest, catalog, progress)

    def on_card(batch: int) -> int:
        held = max((tokens.size for tokens in heldout.values()), default=0)
        needs = method.needs | needs_of(values)
        size = DTYPES.get(options.compute, torch.bfloat16).itemsize
        return card_bytes(
            reader.spec, batch, max(options.seq_len, HELDOUT_LENGTH), held, needs, size
        )

    device, card = choose_card(options.device, on_card(1) if fits_by_block(method.needs) else 0)
    notes = []
    if card is not None and fits_by_block(method.needs):
        batch = fitting_batch(options.batch, on_card, card.free)
        options = replace(options, batch=batch)
        notes.append(f"blocks stream through {card}: {size_text(on_card(batch))} of it at most")
    job = None
    if not budget.off:
        teacher = open_teacher(store, options.teacher, digest, tokenizer)
        recipe = recipe_of(options.recipe, reader.spec, options.values)
        learns_from = load_recovery_data(
            options.calibration,
            recipe,
            TextOrigin(options.language, catalog, options.offline, progress),
            tokenizer,
            manifest.prompt,
            options.seed,
            Mixed(holes=teacher is not None),
        )
        job = RecoveryJob(budget, recipe, learns_from, teacher)
    if job is not None:
        compute = options.compute if options.compute in DTYPES else "bfloat16"
        kept = _kept(reader, allocation)
        if options.device == "auto":
            device, why = device_for(reader, job, kept, device, compute)
            notes = [why] if why else notes
        fitted = fitting_job(reader, job, kept, device, compute)
        if fitted != job:
            job = fitted
            notes.append(NARROW)
    unchosen = ExtractionPlan(
        base=digest,
        language=options.language,
        method=MethodRecord(name=method.name, params=dict(method.params)),
        allocation=allocation,
        values=values,
        head=head,
        calibration=None,
        evaluate={d: sha256_of(np.ascontiguousarray(t).tobytes()) for d, t in heldout.items()},
        device=device.type,
        recovery=recovery_plan(job) if job else None,
    )

    @cache
    def text(spec: str, language: str, samples: int) -> CalibrationData:
        return load_calibration(
            spec,
            TextOrigin(language, catalog, options.offline, progress),
            Renderer(tokenizer, manifest.prompt),
            samples=samples,
            seq_len=options.seq_len,
            seed=options.seed,
        )

    def calibration(samples: int) -> CalibrationData | None:
        return text(options.calibration, options.language, samples) if method.needs else None

    def general(samples: int) -> CalibrationData | None:
        if Need.GENERAL_GRADIENTS not in method.needs:
            return None
        return text(f"pack:{GENERAL}", GENERAL, samples)

    def plan_of(samples: int, compute: str) -> ExtractionPlan:
        used = calibration(samples)
        record = None if used is None else calibration_record(used)
        made = unchosen.method
        further = general(samples)
        if further is not None:
            made = MethodRecord(
                name=made.name, params=made.params | {"text": f"{further.source} {further.digest}"}
            )
        return replace(unchosen, method=made, calibration=record, compute=compute)

    held_tokens = sum(t.size for t in heldout.values())
    rates = Rates(reader.spec, device)

    def cost(samples: int, compute: str) -> Estimate:
        about = partial(estimate, reader.spec, rates=rates)
        pruned = Reading(samples, options.seq_len)
        whole = replace(pruned, heldout=held_tokens)
        if job is None:
            return about(whole, method.needs, compute, values, training=learned)
        pruning = about(pruned, method.needs, compute, "bf16", training=learned)
        needs = frozenset({Need.SQUARE_SUMS} if method.needs else ())
        packing = about(whole, needs, compute, values)
        peak = max(pruning.peak_memory_bytes, packing.peak_memory_bytes)
        return replace(pruning, packing=packing.seconds, peak_memory_bytes=peak)

    chosen = choose(
        plan_of,
        _counts(options, calibrated=bool(method.needs)),
        computes(options.compute, device, method.needs, fast=options.fast),
        partial(started, store),
        rates,
        lambda samples, compute: cost(samples, compute).seconds,
    )
    plan, data, further = chosen.plan, calibration(chosen.samples), general(chosen.samples)
    cached = store.find_plan(plan.digest)
    if cached is None and method.needs & _LARGE:
        require_memory(
            method.name,
            chosen.samples,
            lambda samples: cost(samples, plan.compute).peak_memory_bytes,
        )
    learning = 0
    if cached is None and job is not None:
        learning = check_job(reader, job, _kept(reader, allocation), device, plan.compute)
    name = options.name or model_name(base, options.language, options.tag)
    old = store.names().get(name)
    replaced = store.manifest(old) if old else None
    return Prepared(
        name=name,
        plan=plan,
        base=manifest,
        reader=reader,
        tokenizer=tokenizer,
        method=method,
        tokens=data.tokens if data else None,
        heldout=heldout,
        options=options,
        device=device,
        estimate=cost(chosen.samples, plan.compute),
        general=further.tokens if further else None,
        recovery=job,
        recovery_bytes=learning,
        cached=cached,
        replaces=replaced if isinstance(replaced, ModelManifest) else None,
        notes=notes + _notes(options, chosen),
    )


def _learned(method: Method, allocation: Allocation) -> LearnedMasks | None:
    """Raises PatternError for a pattern whose masks cannot be learned."""
    if not isinstance(method, MaskLlm):
        return None
    patterns = {allocation.default, *allocation.tensors.values()}
    masks = [candidates(pattern) for pattern in patterns if pattern.kind != "dense"]
    most = max((len(of) / of.shape[1] for of in masks), default=0.0)
    return LearnedMasks(method.training.steps, method.training.batch, most)


def _kept(reader: WeightReader, allocation: Allocation) -> int:
    """Weights that learn: what masks leave."""
    patterns = {name: allocation.of(name) for name in reader.spec.matrices()}
    sparse = {name: pattern for name, pattern in patterns.items() if pattern.kind != "dense"}
    shapes = reader.spec.matrices()
    return int(sum(math.prod(shapes[name]) * pattern.density for name, pattern in sparse.items()))


def recovery_plan(job: RecoveryJob) -> RecoveryPlan:
    return RecoveryPlan(
        budget=str(job.budget),
        recipe=job.recipe.identity(),
        source=job.data.source,
        text=job.data.learned.digest,
        heldout=job.data.heldout.digest,
        teacher=job.teacher.digest if job.teacher else "",
    )


def _counts(options: ExtractOptions, *, calibrated: bool) -> tuple[int, ...]:
    if options.samples is not None:
        return (options.samples,)
    return fast_counts() if options.fast and calibrated else (DEFAULT_SAMPLES,)


def _notes(options: ExtractOptions, chosen: Choice) -> list[str]:
    if not options.fast or options.samples is not None or chosen.plan.calibration is None:
        return []
    if chosen.known:
        reason = "with which an earlier run began"
    elif chosen.samples > fast_counts()[0]:
        reason = f"the most that fit {FAST_SECONDS} s here"
    else:
        reason = "the fewest that it takes"
    return [
        f"fast: {chosen.samples} calibration sequences, {reason}; samples of a recipe sets another"
    ]


def _heldout(
    options: ExtractOptions,
    tokenizer: Tokenizer,
    base: BaseManifest,
    catalog: Catalog,
    progress: Progress | None,
) -> dict[str, npt.NDArray[np.int32]]:
    if options.heldout is not None:
        return dict(options.heldout)
    domains = dict.fromkeys((options.language, *options.evaluate))
    return {
        domain: load_heldout(
            TextOrigin(domain, catalog, options.offline, progress),
            Renderer(tokenizer, base.prompt),
            sequences=HELDOUT_SEQUENCES,
            seq_len=HELDOUT_LENGTH,
            spec=options.calibration if domain == options.language else "",
        )
        for domain in domains
    }
