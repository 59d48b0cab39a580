"""The sensitivity of a base on a language: from the store's cache, or measured now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from subllm.errors import UsageError
from subllm.kernels.sparsity.pattern import Pattern
from subllm.making.calibration.load import TextOrigin, load_calibration
from subllm.making.calibration.render import Renderer
from subllm.making.extraction.blocks.torch_blocks import TorchBlocks
from subllm.making.extraction.compute import faster
from subllm.making.extraction.device import choose_device
from subllm.making.extraction.estimate import Rates
from subllm.making.extraction.prepare import ExtractOptions, open_base
from subllm.making.extraction.sensitivity.known import known
from subllm.making.extraction.sensitivity.record import Sensitivity, groups_of, read
from subllm.making.extraction.sensitivity.sweep import EVERY, Ground, Sweep
from subllm.making.pruning.method import WHOLE_MODEL, Need
from subllm.making.pruning.registry import get_method
from subllm.making.recovery.compute import DTYPES
from subllm.models.arch.spec import ArchSpec
from subllm.models.catalog.loader import Catalog
from subllm.models.store.manifest import canonical_json, sha256_of
from subllm.models.store.store import Store
from subllm.progress import Progress

ALONE = tuple(map(Pattern.parse, ("8:16", "12:16")))
WHOLE = tuple(map(Pattern.parse, ("6:16", "8:16", "10:16", "12:16")))
"""What groups and whole models are pruned to. How a group's loss falls between two patterns is
taken from the whole model, which costs a hundredth."""

SEQUENCES, MEASURED, LENGTH = 16, 4, 256
"""Sequences of calibration for the method's statistics, those of them that the divergence is
measured on, and the tokens of each."""

_STAND_IN = "wanda"
_SLOW = WHOLE_MODEL | {Need.FULL_HESSIAN}
_VERSION = 1  # of how it is measured
_OVERHEAD = 3.0  # how many times as long as its matrix products a sweep takes


def known_for(base: str, spec: ArchSpec, options: ExtractOptions) -> Sensitivity | None:
    """What comes with subllm for a base of that name, where the method is what it was measured
    with: Wanda, or one that Wanda stands in for."""
    method = get_method(options.method, options.method_params)
    if Need.MASK_LOGITS in method.needs:
        return None
    if method.name != _STAND_IN and not method.needs & _SLOW:
        return None
    return known(base, spec)


def sensitivity(
    store: Store, base: str, options: ExtractOptions, catalog: Catalog, progress: Progress
) -> Sensitivity:
    """Of `base` under the options' language, method and calibration source.

    A method that looks at the whole model, or inverts a Hessian for every matrix, would take hours
    and is stood in for by Wanda. A measurement lies in the store's cache for as long as a name
    needs the base; one that was stopped goes on. What comes with subllm, for packs, is not measured
    again.
    Raises what `prepare` raises of the same options.
    """
    digest, manifest, reader, tokenizer = open_base(store, base)
    shipped = known_for(manifest.name, reader.spec, options)
    if shipped is not None and not options.calibration:
        progress.note(f"sensitivity of {base}: comes with subllm")
        return shipped
    method = get_method(options.method, options.method_params)
    if Need.MASK_LOGITS in method.needs:
        raise UsageError(
            f"budget and keep choose among N:16, which {method.name} does not learn; "
            "say a pattern instead"
        )
    if method.needs & _SLOW:  # which would take longer than all of the rest
        method = get_method(_STAND_IN)
    device = choose_device(options.device)
    length = min(LENGTH, reader.spec.context_length)
    data = load_calibration(
        options.calibration,
        TextOrigin(options.language, catalog, options.offline, progress),
        Renderer(tokenizer, manifest.prompt),
        samples=SEQUENCES,
        seq_len=length,
        seed=options.seed + 1,  # other rows than those that masks are chosen on
    )

    def key(compute: str) -> dict[str, Any]:
        return {
            "version": _VERSION,
            "base": digest,
            "language": options.language,
            "method": {"name": method.name, "params": dict(method.params)},
            "calibration": {"source": data.source, "digest": data.digest},
            "patterns": [[str(pattern) for pattern in of] for of in (ALONE, WHOLE)],
            "measured": [MEASURED, length, EVERY],
            "compute": compute,
            "device": device.type,
        }

    def place(compute: str) -> Path:
        return store.workspace.measured(digest, sha256_of(canonical_json(key(compute)))[7:23])

    allowed = ("bfloat16",) if device.type != "cpu" else ("bfloat16", "float32")
    wanted = len(groups_of(reader.spec))
    for compute in allowed:
        known = read(place(compute), key(compute))
        if known is not None and len(known.alone) == wanted:
            progress.note(f"sensitivity of {base} to {options.language}: measured before")
            return known
    rates = Rates(reader.spec, device)
    begun = [compute for compute in allowed if place(compute).exists()]
    compute = begun[0] if begun else faster(allowed, rates)
    with store.lock(f"sensitivity-{digest}-{options.language}", on_wait=progress.note):
        blocks = TorchBlocks(reader, device, DTYPES[compute])
        ground = Ground(blocks, method, ALONE, WHOLE, data.tokens, MEASURED)
        sweep = Sweep(ground, place(compute), key(compute))
        cost = _cost(sweep, ground, rates(compute))
        progress.note(
            f"measuring what each group of matrices is worth to {options.language}, once for "
            f"this base: about {max(1, round(cost / 60))} min ({compute}, "
            f"{rates(compute) / 1e9:.0f} GFLOP/s)"
        )
        return sweep.run(progress)


def _cost(sweep: Sweep, ground: Ground, rate: float) -> float:
    """Seconds."""
    spec, length = ground.blocks.spec, ground.tokens.shape[1]
    tokens = ground.measured * length
    blocks = sweep.work() * tokens * spec.block_params()
    positions = len(groups_of(spec)) * len(ground.alone) * tokens // EVERY
    flops = 2.0 * (blocks + positions * spec.vocab_size * spec.hidden_size)
    return float(_OVERHEAD * flops / rate)
