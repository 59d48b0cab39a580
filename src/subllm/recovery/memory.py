"""What a recovery needs of memory, before it starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import psutil
import torch

from subllm.arch.spec import ArchSpec
from subllm.errors import UsageError
from subllm.recovery import eight_bit
from subllm.recovery.loss import CHUNK
from subllm.recovery.recipe import Recipe

# transformers and torch, once they run; and what allocators keep; bytes.
_LIBRARIES, _SLACK = 450_000_000, 1.05


@dataclass(frozen=True)
class Need:
    """Bytes, `kept` of them for inner states of all blocks, which checkpointing saves."""

    total: int
    without_checkpointing: int


def needed(spec: ArchSpec, recipe: Recipe, size: int, learned: int, embedding_rows: int) -> Need:
    """size: bytes of a value of the compute dtype; learned: values that learn."""
    hidden, inter, layers = spec.hidden_size, spec.intermediate_size, spec.num_layers
    moments = {"float32": 8, "bfloat16": 4, "int8": eight_bit.BYTES}[recipe.moments]
    weights = size * (layers * spec.block_params() + (spec.vocab_size + embedding_rows) * hidden)
    masters = int(learned * (4 + moments + 1))
    logits = min(CHUNK, recipe.tokens) * spec.vocab_size * size * (1 if recipe.top_k else 2)
    token = size * (8 * hidden + 2 * spec.num_heads * spec.head_dim + 5 * inter)
    inner = token + 4 * 6 * hidden  # norms in float32
    largest = max(lin.in_features * lin.out_features for lin in spec.linears)
    scratch = largest * (3 * size + 8)
    passed_on = recipe.tokens * hidden * size * layers
    base = weights + masters + logits + scratch
    if not recipe.top_k:
        base += size * layers * spec.block_params()
    once = base + passed_on + recipe.tokens * inner * 2
    whole = base + recipe.tokens * inner * layers
    return Need(int(once * _SLACK) + _LIBRARIES, int(max(once, whole) * _SLACK) + _LIBRARIES)


def free_bytes(device: torch.device) -> int:
    """What can be had of the device's memory, the process's own share of it included."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return psutil.virtual_memory().available + psutil.Process().memory_info().rss


def fitting(recipe: Recipe, need: Callable[[Recipe], Need], free: int) -> Recipe:
    """The recipe; with moments in 8 bits where it fits with those only, and they can be had."""
    narrow = replace(recipe, moments="int8")
    if need(recipe).total > free >= need(narrow).total and eight_bit.available():
        return narrow
    return recipe


def choose_checkpointing(
    need: Need, free: int, one_sequence: Need, eight_bits: Need | None = None
) -> bool:
    """Whether blocks run again in backward: unless all fits in half of what is free.

    one_sequence: the need with one sequence a step; eight_bits: that with moments in 8 bits.
    Raises UsageError where even checkpointing does not fit, with what is missing and what would
    fit.
    """
    if need.without_checkpointing <= free / 2:
        return False
    if need.total <= free:
        return True
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
