"""What a decoder computes on a GPU: products of packed matrices and all that lies between them.

Two implementations, picked once for a kind of device: Triton's kernels (`kernels.triton`), where
Triton is installed and the device is CUDA, or the CPU with TRITON_INTERPRET=1 set before
anything is imported; else plain torch (`kernels.triton.plain`), slow and for any device.

Rules of all functions. Tensors are on one device, torch's current one; rows are tokens (or
sequences), the last axis is contiguous. Nothing waits for the device and nothing depends on the
contents of a tensor, so that a sequence of calls can be captured in a CUDA graph: give `out` to
write to a buffer of your own; without it a new tensor is returned, which inside a capture belongs
to the graph's memory. Sums have a fixed order, there are no atomics, and a row's result does not
depend on the other rows as long as the number of rows takes the same way through `packed_matmul`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from functools import cache
from types import ModuleType
from typing import Literal

import torch

from subllm.errors import BackendError
from subllm.kernels.products.triton import choice, plain
from subllm.kernels.products.triton.operands import (
    Bias,
    KvPlanes,
    Penalties,
    Rotation,
    Scores,
    SeenKeys,
)
from subllm.kernels.products.triton.planes import DevicePacked

__all__ = [
    "DevicePacked",
    "activate",
    "adjust",
    "expand",
    "greedy",
    "norm",
    "packed_matmul",
    "paged_attention",
    "rotate_and_store",
    "sample",
]

Activation = Literal["silu", "gelu", "gelu_tanh"]


@cache
def implementation(kind: str) -> ModuleType:
    """The module that computes on devices of `kind` ("cuda", "cpu", ...)."""
    runs = kind == "cuda" or (kind == "cpu" and os.environ.get("TRITON_INTERPRET") == "1")
    if not runs or importlib.util.find_spec("triton") is None:
        return plain
    return importlib.import_module("subllm.kernels.products.triton.compiled")


def expand(weight: DevicePacked) -> torch.Tensor:
    """float32 [rows, cols]: the weights, zeros where dropped; bit for bit what
    `sparsity.packing.unpack` gives."""
    found: torch.Tensor = implementation(weight.device.type).expand(weight)
    return found


def packed_matmul(
    x: torch.Tensor,
    weight: DevicePacked,
    *,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """x [tokens, cols] -> x @ W.T + bias + residual, [tokens, rows].

    x         bfloat16, float16 or float32. Weights are not rounded beyond their value type;
              sums are float32. With more than 8 tokens products of codes and activations run
              in the type of x.
    bias      float32 [rows]
    residual  [tokens, rows], added last; may be `out` itself
    out       [tokens, rows] of any float type; float32 without it

    Three ways, by the number of tokens alone: 1 to 8 (weights expanded once for all tokens,
    multiplied and added on ordinary cores), 9 to 64 (expanded in registers for tensor cores),
    more (expanded a slice of rows at a time into scratch memory for `torch.matmul`). A token's
    result has the same bits for any number of tokens that takes the same of the first two ways.

    Raises BackendError for shapes that do not fit.
    """
    rows, cols = weight.shape
    if x.ndim != 2 or x.shape[1] != cols:
        raise BackendError(f"packed_matmul: x is {tuple(x.shape)}, the weight {weight.shape}")
    out = _out(out, (x.shape[0], rows), torch.float32, x.device, "packed_matmul")
    implementation(x.device.type).packed_matmul(x, weight, bias, residual, out)
    return out


def norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    *,
    bias: torch.Tensor | None = None,
    add: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """RMSNorm of x [tokens, size], or LayerNorm where `bias` is given: [tokens, size].

    weight, bias  float32 [size], an offset of the family added already
    add           [tokens, size]: added to x first, in place (x is the residual stream, best
                  float32; `add` what the layer before gives)
    out           [tokens, size] of any float type; the type of x without it
    """
    out = _out(out, tuple(x.shape), x.dtype, x.device, "norm")
    implementation(x.device.type).norm(x, weight, bias, eps, add, out)
    return out


def rotate_and_store(
    qkv: torch.Tensor,
    positions: torch.Tensor,
    slots: torch.Tensor,
    rotation: Rotation,
    kv: KvPlanes,
) -> None:
    """Rotates the queries of `qkv` in place, and its keys on the way to their place.

    qkv        [tokens, heads + 2 * kv_heads, dim]: queries, keys, values. What it holds of
               keys afterwards is not specified.
    positions  int32 or int64 [tokens]
    slots      int32 or int64 [tokens]: block * block_size + place in it, where a token's key and
               value go; -1: nowhere (a row that fills up a batch)
    """
    implementation(qkv.device.type).rotate_and_store(qkv, positions, slots, rotation, kv)


def activate(
    x: torch.Tensor, kind: Activation, *, gated: bool = True, out: torch.Tensor | None = None
) -> torch.Tensor:
    """x [tokens, 2 * size], gate then up -> act(gate) * up, [tokens, size]; not gated: act(x)."""
    size = x.shape[1] // 2 if gated else x.shape[1]
    out = _out(out, (x.shape[0], size), x.dtype, x.device, "activate")
    implementation(x.device.type).activate(x, kind, gated, out)
    return out


def paged_attention(
    queries: torch.Tensor,
    kv: KvPlanes,
    seen: SeenKeys,
    scores: Scores,
    *,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention of one query per row over the keys of its sequence: [rows, heads, dim].

    queries  [rows, heads, dim], rotated; may be a view of a qkv buffer; heads is a multiple of
             kv_heads

    Time goes with max_blocks and the lengths; the order of sums with neither lengths of other
    rows nor max_blocks.
    """
    out = _out(out, tuple(queries.shape), queries.dtype, queries.device, "paged_attention")
    implementation(queries.device.type).paged_attention(queries, kv, seen, scores, out)
    return out


def greedy(logits: torch.Tensor, *, out: torch.Tensor | None = None) -> torch.Tensor:
    """Of each row of logits [rows, vocab] the largest, the lowest of equal ones: int32 [rows].
    NaN is no candidate; -1 where the largest is not finite."""
    out = _out(out, (logits.shape[0],), torch.int32, logits.device, "greedy")
    implementation(logits.device.type).greedy(logits, out)
    return out


def adjust(
    logits: torch.Tensor,
    *,
    bias: Bias | None = None,
    penalties: Penalties | None = None,
    allowed: torch.Tensor | None = None,
) -> None:
    """Bias, penalties and what is allowed, on logits float32 [rows, vocab] in place; as
    `engine.sampler.adjust`. What is None is left out, for all rows.

    allowed  int32 [rows, words]: bit t % 32 of word t / 32 is token t
    """
    choice.adjust(logits, bias, penalties, allowed)


def sample(
    logits: torch.Tensor,
    temperatures: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    min_p: torch.Tensor,
    uniforms: torch.Tensor,
    *,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """The token of each row of logits [rows, vocab], as `engine.sampler.sample` draws it from
    adjusted logits: int32 [rows], -1 where the largest is not finite.

    temperatures  floats [rows], 0: greedy; top_k integers [rows], 0: all
    top_p, min_p, uniforms  floats [rows], best float64, in which sums are; a uniform is in [0, 1)

    Sorts whole rows: use `greedy` where every temperature is 0.
    """
    out = _out(out, (logits.shape[0],), torch.int32, logits.device, "sample")
    choice.sample(logits, temperatures, top_k, top_p, min_p, uniforms, out)
    return out


def _out(
    out: torch.Tensor | None,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
    what: str,
) -> torch.Tensor:
    if out is None:
        return torch.empty(shape, dtype=dtype, device=device)
    if tuple(out.shape) != shape or out.device != device or out.stride(-1) != 1:
        raise BackendError(
            f"{what}: out is {tuple(out.shape)} on {out.device}, not a {shape} on {device}"
        )
    return out
