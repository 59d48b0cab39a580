"""Whether the kernels compute on this card what plain torch does, seen before a model is served.

A driver, a card or a version of Triton that nobody has tried could give other numbers without any
error. So one matrix of each format is multiplied in each way, by the kernels and by plain torch.
"""

from __future__ import annotations

import torch

from subllm.engine.backends.cuda.weights import Weights
from subllm.errors import KernelError
from subllm.kernels.products.triton import plain
from subllm.kernels.products.triton_ops import DevicePacked, packed_matmul

_TOKENS = (1, 16, 80)
"""One number for each way that `packed_matmul` takes."""
_CLOSE = 0.02
"""Of the largest result: bfloat16 activations have 8 bits, and sums of them take other orders."""
_LARGEST = 1 << 24  # weights of a matrix that is worth a check; a head is not


def check_kernels(weights: Weights, dtype: torch.dtype) -> None:
    """dtype: of activations. Raises KernelError where a product differs or cannot be computed;
    out of memory passes as it is."""
    for weight in _one_of_each(weights):
        for tokens in _TOKENS:
            _check(weight, tokens, dtype)


def _one_of_each(weights: Weights) -> list[DevicePacked]:
    found: dict[tuple[str, str, int], DevicePacked] = {}
    for layer in weights.layers:
        for product in (layer.qkv, layer.out, layer.up, layer.down):
            for part in product.parts:
                if part.shape[0] * part.shape[1] <= _LARGEST:
                    found.setdefault((part.values, part.form, part.kept), part)
    return list(found.values())


def _check(weight: DevicePacked, tokens: int, dtype: torch.dtype) -> None:
    rows, cols = weight.shape
    device = weight.device
    wave = torch.arange(tokens * cols, device=device, dtype=torch.float32)
    x = torch.sin(wave * 0.7).view(tokens, cols).to(dtype)
    wanted = torch.empty((tokens, rows), dtype=torch.float32, device=device)
    plain.packed_matmul(x, weight, None, None, wanted)
    what = f"{weight.form} {weight.values}, {tokens} tokens"
    try:
        off = (packed_matmul(x, weight) - wanted).abs().max() / wanted.abs().max().clamp(min=1e-20)
        error = float(off)
    except Exception as problem:  # of a compiler and a driver, whose errors have no common type
        if "out of memory" in str(problem):
            raise
        line = (str(problem).splitlines() or [type(problem).__name__])[0][:160]
        raise KernelError(
            f"a kernel does not run on {device} ({what}: {line}); choose --backend torch"
        ) from problem
    if not error <= _CLOSE:  # nor where it is not a number
        raise KernelError(
            f"a kernel computes something else on {device} than it should ({what}: off by "
            f"{error:.2g} of the largest); choose --backend torch"
        )
