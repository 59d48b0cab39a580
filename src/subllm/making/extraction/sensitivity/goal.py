"""From what a user wants of a sub-model's size or quality to an allocation."""

from __future__ import annotations

import math

from subllm.kernels.sparsity.pattern import Pattern
from subllm.making.extraction.plan import value_type
from subllm.making.extraction.prepare import ExtractOptions, open_base
from subllm.making.extraction.sensitivity.allocate import LEVELS, Allocator, Chosen
from subllm.making.extraction.sensitivity.measure import known_for, sensitivity
from subllm.making.extraction.threads import torch_threads
from subllm.making.pruning.budget import Goal
from subllm.models.catalog.loader import Catalog
from subllm.models.store.store import Store
from subllm.models.weights.reader import WeightReader
from subllm.progress import Progress


def allocate(
    store: Store,
    base: str,
    options: ExtractOptions,
    goal: Goal,
    catalog: Catalog,
    progress: Progress,
    threads: int | None = None,
) -> Chosen:
    """Where density stays in the sub-model of these options. Measures what that takes, unless
    it was measured before. Raises UsageError for a goal that cannot be reached, else what
    `prepare` raises."""
    with torch_threads(threads):
        measured = sensitivity(store, base, options, catalog, progress)
    reader = open_base(store, base)[2]
    values, head = value_type(options.values), value_type(options.head)
    allocator = Allocator(reader.spec, vectors_of(reader), measured, values, head)
    if goal.budget is not None:
        return allocator.within(goal.budget)
    assert goal.keep is not None
    return allocator.keeping(goal.keep)


def laid_out(store: Store, base: str, options: ExtractOptions, pattern: Pattern) -> Chosen | None:
    """The bytes of `pattern` everywhere, where they count most by a sensitivity that comes with
    subllm, whatever the calibration; None for a base or a method without one, and for a pattern
    that is no level. Measures nothing. Raises UsageError for a `base` that is none."""
    manifest, reader = open_base(store, base)[1:3]
    measured = known_for(manifest.name, reader.spec, options)
    if measured is None or pattern not in LEVELS:
        return None
    values, head = value_type(options.values), value_type(options.head)
    return Allocator(reader.spec, vectors_of(reader), measured, values, head).like(pattern)


def vectors_of(reader: WeightReader) -> dict[str, int]:
    """Elements of the norms and biases, by name."""
    spec = reader.spec
    names = [name for layer in range(spec.num_layers) for name in spec.block_vectors(layer)]
    names.append(spec.final_norm_name)
    if spec.norm_bias:
        names.append(spec.final_norm_name.removesuffix("weight") + "bias")
    return {name: math.prod(reader.shape(name)) for name in names}
