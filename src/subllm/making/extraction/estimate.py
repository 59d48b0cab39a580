"""Time and memory that an extraction will take, before it starts, and took."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch

from subllm.kernels.products.ops import Matrix, Pool, multiply_all
from subllm.kernels.sparsity.layout import Values
from subllm.kernels.sparsity.packing import pack
from subllm.making.extraction.blocks.head_loss import TOKENS
from subllm.making.extraction.blocks.native_blocks import VALUES
from subllm.making.extraction.blocks.open import INT8
from subllm.making.extraction.quantiser import needs_of
from subllm.making.extraction.shared import DENSE
from subllm.making.pruning.method import HESSIAN_COLUMNS, WHOLE_MODEL, Need
from subllm.making.recovery.compute import DTYPES, MEASURED_TOKENS, fastest, product_rate
from subllm.models.arch.spec import ArchSpec

# How many times as long as its matrix products a run takes (norms, attention, masks, packing
# are the rest), measured on the 0.5B. Next to int8 products the rest weighs more.
_OVERHEAD, _OVERHEAD_INT8 = 1.5, 2.0
# Rounding a weight to int4 beside that, on two cores; seconds.
_INT4_SECONDS = 1e-7
# transformers and torch's own buffers, once blocks run; bytes.
_LIBRARIES = 350_000_000


@dataclass(frozen=True)
class Estimate:
    """flops counts a multiply-add as two; rate is this machine's measured FLOP/s in the dtype of
    blocks. packing: seconds of a pass of its own, after recovery; 0 where pruning packs."""

    flops: float
    rate: float
    seconds: float
    peak_memory_bytes: int
    packing: float = 0.0


_GRADIENTS = frozenset({Need.GRADIENTS, Need.GENERAL_GRADIENTS})
# A full Hessian, what it is damped and inverted into, and the factor of that.
_FULL_HESSIANS = 4


def product_flops(spec: ArchSpec, tokens: int, heldout_tokens: int, statistics: bool) -> float:
    """Matrix products of the whole run in the dtype of blocks.

    Two passes of every block over the calibration tokens, where the statistics pass
    stops before the down projection and the last block is not run again; held-out
    tokens go through the dense and the packed blocks and both heads.
    """
    block = spec.block_params()
    down = spec.linears[-1].in_features * spec.linears[-1].out_features
    per_token = spec.num_layers * (2 * block - down) - block if statistics else 0
    head = spec.vocab_size * spec.hidden_size
    held = 2 * (spec.num_layers * block + head)
    return 2.0 * (tokens * per_token + heldout_tokens * held)


def hessian_flops(spec: ArchSpec, tokens: int, *, full: bool) -> float:
    """Of the Hessians of all inputs, in float32 whatever blocks run in: within slabs of
    HESSIAN_COLUMNS, or `full` ones with what inverting and using them takes."""
    inputs = {linear.group: linear.in_features for linear in spec.linears}
    if not full:
        slabs = sum(columns * min(columns, HESSIAN_COLUMNS) for columns in inputs.values())
        return 2.0 * spec.num_layers * tokens * slabs
    # Half of the products and a panel, by symmetry; two factors and an inverse per matrix, then
    # every column of it tells all later ones.
    products = sum(
        columns * (columns + min(columns, HESSIAN_COLUMNS)) // 2 for columns in inputs.values()
    )
    solving = sum(
        linear.in_features**2 * (2 / 3 * linear.in_features + linear.out_features / 2)
        for linear in spec.linears
    )
    return 2.0 * spec.num_layers * (tokens * products + solving)


@dataclass(frozen=True)
class LearnedMasks:
    """What `maskllm` learns: steps of `batch` sequences, and how many logits a weight has."""

    steps: int
    batch: int
    logits_per_weight: float


def streamed_needs(needs: frozenset[Need], values: Values) -> bool:
    """Whether calibration states run through the blocks as they are pruned: for what a method
    needs of single blocks, or for packing to `values` after any calibrated method."""
    return bool(needs - WHOLE_MODEL or (needs and needs_of(values)))


def gradient_flops(spec: ArchSpec, tokens: int) -> float:
    """Of the gradients of all block weights: forward, once more, and twice that backward; the
    head forward and back to its inputs."""
    blocks, head = spec.num_layers * spec.block_params(), spec.vocab_size * spec.hidden_size
    return 2.0 * tokens * (4 * blocks + 2 * head)


def measured_rate(spec: ArchSpec, device: torch.device, compute: str) -> float:
    """As `product_rate`, of the native engine's int8 products too."""
    if compute != INT8:
        return product_rate(spec, compute, device)
    inner, outer = spec.hidden_size, spec.intermediate_size
    return (
        2.0
        * MEASURED_TOKENS
        * inner
        * outer
        / fastest(_native_product(MEASURED_TOKENS, inner, outer))
    )


def _native_product(tokens: int, inner: int, outer: int) -> Callable[[], None]:
    matrix = Matrix(pack(np.ones((outer, inner), np.float32), None, DENSE, VALUES))
    pool = Pool(torch.get_num_threads())
    x = np.ones((tokens, inner), np.float32)
    out = np.empty((tokens, outer), np.float32)
    return lambda: multiply_all(pool, [matrix], x, [out])


class Rates:
    """`measured_rate` of one model, each measured once."""

    def __init__(self, spec: ArchSpec, device: torch.device) -> None:
        self._spec, self._device = spec, device
        self._known: dict[str, float] = {}

    def __call__(self, compute: str) -> float:
        if compute not in self._known:
            self._known[compute] = measured_rate(self._spec, self._device, compute)
        return self._known[compute]


@dataclass(frozen=True)
class Reading:
    """What an extraction reads: `samples` calibration sequences of `seq_len` tokens, and
    `heldout` tokens."""

    samples: int
    seq_len: int
    heldout: int = 0


def estimate(
    spec: ArchSpec,
    reading: Reading,
    needs: frozenset[Need],
    compute: str,
    values: Values,
    rates: Callable[[str], float],
    training: LearnedMasks | None = None,
) -> Estimate:
    """Of an extraction to `values` by a method with such `needs`, whose blocks run on
    `compute`; rates: FLOP/s of what blocks can run on."""
    samples, seq_len, heldout_tokens = reading.samples, reading.seq_len, reading.heldout
    hessians = Need.HESSIAN in needs_of(values) and compute != INT8
    full = Need.FULL_HESSIAN in needs
    streamed = streamed_needs(needs, values)
    flops = product_flops(spec, samples * seq_len, heldout_tokens, streamed)
    texts = len(needs & _GRADIENTS)
    flops += texts * gradient_flops(spec, samples * seq_len)
    if training is not None:
        # Wanda's statistics of the dense model, then the steps.
        flops += product_flops(spec, samples * seq_len, 0, True)
        flops += gradient_flops(spec, training.steps * training.batch * seq_len)
    size = 4 if compute == INT8 else DTYPES[compute].itemsize
    states = (samples * seq_len + 2 * heldout_tokens) * spec.hidden_size * size
    largest = max(lin.out_features * lin.in_features for lin in spec.linears)
    block = spec.block_params() * size + largest * 12  # float32 source, scores, mask, packed
    working = 512 * spec.intermediate_size * size * 6
    head_slice = 16384 * spec.hidden_size * (4 + size)
    head = 2.2 * spec.vocab_size * spec.hidden_size  # packed in parts, then in one piece
    resident = psutil.Process().memory_info().rss + _LIBRARIES
    if full:
        inputs = {linear.group: linear.in_features for linear in spec.linears}
        widest = max(inputs.values())
        collected = 4 * sum(columns**2 for columns in inputs.values())
        working = max(working + collected, collected + 4 * (_FULL_HESSIANS - 1) * widest**2)
    if texts:
        kept = texts * (spec.num_layers + 2) * samples * seq_len * spec.hidden_size * size
        # Weights and gradients in the block's dtype, two float32 sums of every text.
        learning = spec.block_params() * (2 * size + 8 * texts) + 4 * 4 * largest
        whole_head = spec.vocab_size * (spec.hidden_size * size + 16 * TOKENS)
        working = max(working, kept + max(learning - spec.block_params() * size, whole_head))
    if training is not None:
        drawn = training.batch * seq_len
        logits = 4 * 3 * training.logits_per_weight
        # All blocks with their logits, and one block's masks being differentiated.
        model = spec.num_layers * spec.block_params() * (size + logits)
        model += spec.block_params() * (5 * 4 * training.logits_per_weight + 3 * size)
        model += (spec.num_layers + 2) * drawn * spec.hidden_size * size
        model += drawn * (spec.intermediate_size + 2 * spec.hidden_size) * size * 8
        working = max(
            working, int(model + spec.vocab_size * (spec.hidden_size * size + 16 * TOKENS))
        )
    peak = resident + states + max(block + working, head_slice, head)
    solved = 0.0
    if streamed and hessians:
        solved += hessian_flops(spec, samples * seq_len, full=False)
    if full:
        solved += hessian_flops(spec, samples * seq_len, full=True)
    rate = rates(compute)
    seconds = flops / rate + (solved / rates("float32") if solved else 0.0)
    overhead = _OVERHEAD_INT8 if compute == INT8 else _OVERHEAD
    rounding = spec.num_layers * spec.block_params() * _INT4_SECONDS if values == "int4" else 0.0
    return Estimate(flops + solved, rate, overhead * seconds + rounding + 3.0, int(peak))


def peak_memory_bytes() -> int:
    """The high-water mark of resident memory since the process started, in bytes.

    Linux keeps it per address space (VmHWM); ru_maxrss would also remember what the
    process was before exec.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
