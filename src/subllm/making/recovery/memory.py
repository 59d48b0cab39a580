"""What a recovery needs of memory, before it starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import psutil
import torch

from subllm.errors import UsageError
from subllm.making.recovery import eight_bit
from subllm.making.recovery.again import Kept
from subllm.making.recovery.loss import CHUNK
from subllm.making.recovery.recipe import Recipe
from subllm.models.arch.spec import ArchSpec

# transformers and torch, once they run; and what allocators keep; bytes.
_LIBRARIES, _SLACK = 520_000_000, 1.05
# Of what is free: the rest is left to others, and to what else this process needs.
_SHARE = 0.75


@dataclass(frozen=True)
class Need:
    """Bytes.

    total     with as little as can be kept for the backward pass: the input of every block
    narrow    more for each block of which `Kept.NARROW` is kept
    products  more than that for each block of which `Kept.PRODUCTS` are
    layers    blocks
    """

    total: int
    narrow: int
    products: int
    layers: int

    @property
    def most(self) -> int:
        """With all products of all blocks."""
        return self.taken([Kept.PRODUCTS] * self.layers)

    def taken(self, kept: Sequence[Kept]) -> int:
        """With that kept of each block."""
        each = {Kept.INPUT: 0, Kept.NARROW: self.narrow, Kept.PRODUCTS: self.narrow + self.products}
        return self.total + sum(each[of] for of in kept)


def needed(
    spec: ArchSpec,
    recipe: Recipe,
    size: int,
    learned: int,
    embedding_rows: int,
    teacher: ArchSpec | None = None,
) -> Need:
    """size: bytes of a value of the compute dtype; learned: values that learn; teacher: where
    that is not the base."""
    hidden, inter, layers = spec.hidden_size, spec.intermediate_size, spec.num_layers
    moments = {"float32": 8, "bfloat16": 4, "int8": eight_bit.BYTES}[recipe.moments]
    weights = size * (layers * spec.block_params() + (spec.vocab_size + embedding_rows) * hidden)
    # Of masters what their weights are not; of places a bit each, and where values are rounded a
    # step for 32 of them.
    apart = 4 if recipe.rounding else {2: 2, 4: 0}.get(size, 4)
    matrices = layers * spec.block_params()
    masters = int(learned * (apart + moments)) + matrices // (4 if recipe.rounding else 8)
    logits = min(CHUNK, recipe.tokens) * spec.vocab_size * size * (1 if recipe.top_k else 2)
    token = size * (8 * hidden + 2 * spec.num_heads * spec.head_dim + 5 * inter)
    inner = token + 4 * 6 * hidden  # norms in float32
    largest = max(lin.in_features * lin.out_features for lin in spec.linears)
    scratch = largest * (3 * size + 8)
    passed_on = recipe.tokens * hidden * size * layers
    base = weights + masters + scratch
    if teacher is not None:  # its tables, a block and logits of its own
        rows = (teacher.vocab_size + embedding_rows) * teacher.hidden_size
        base += size * (rows + teacher.block_params()) + logits
    if not recipe.top_k:
        base += size * layers * spec.block_params()
    least = base + passed_on + max(logits, int(recipe.tokens * inner * 1.4))
    wide = sum(lin.out_features for lin in spec.linears if lin.out_features > lin.in_features)
    narrow = sum(lin.out_features for lin in spec.linears) - wide
    if not spec.post_norms:
        narrow -= spec.linears[-1].out_features
    attention = spec.num_heads * (spec.head_dim * size + 4)

    def slack(count: float) -> int:
        return int(count * _SLACK)

    return Need(
        slack(least) + _LIBRARIES,
        slack(recipe.tokens * (size * narrow + attention)),
        slack(recipe.tokens * size * wide),
        layers,
    )


def free_bytes(device: torch.device) -> int:
    """What can be had of the device's memory, the process's own share of it included."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    return psutil.virtual_memory().available + psutil.Process().memory_info().rss


def fitting(recipe: Recipe, need: Callable[[Recipe], Need], free: int) -> Recipe:
    """The recipe; with moments in 8 bits where it fits with those only, and they can be had."""
    narrow = replace(recipe, moments="int8")
    if need(recipe).total > free >= need(narrow).total and eight_bit.available():
        return narrow
    return recipe


def choose_kept(
    need: Need, free: int, one_sequence: Need, eight_bits: Need | None = None
) -> tuple[Kept, ...]:
    """What is kept of each block, so that three quarters of what is free suffice; where that
    cannot be, as little as possible.

    one_sequence: the need with one sequence a step; eight_bits: that with moments in 8 bits.
    Raises UsageError where nothing fits, with what is missing and what would fit.
    """
    if need.total <= free:
        over = need.most - free * _SHARE
        narrow = _enough(over, need.products, need.layers)
        inputs = _enough(over - need.layers * need.products, need.narrow, need.layers)
        # Of the first blocks least: when backward comes to them, the others' is gone.
        kept = [Kept.INPUT] * inputs + [Kept.NARROW] * (narrow - inputs)
        return (*kept, *[Kept.PRODUCTS] * (need.layers - len(kept)))
    missing = (need.total - free) / 1e9
    hint = "choose a smaller model"
    if eight_bits is not None and eight_bits.total <= free and not eight_bit.available():
        hint = "with bitsandbytes it would fit: pip install 'subllm[gpu]'"
    elif one_sequence.total <= free:
        hint = "with one sequence a step it would fit"
    raise UsageError(
        f"recovery needs {need.total / 1e9:.1f} GB of memory, {missing:.1f} GB more than are "
        f"free; close other programs, use --recover off, or {hint}"
    )


def _enough(over: float, each: int, most: int) -> int:
    """How many to go without, of `most`."""
    return min(max(0, -int(-over // max(each, 1))), most)
