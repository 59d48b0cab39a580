"""The core's threads, packed matrices and products, as the rest of Python calls them.

The native backend hands `Matrix` to the decoder, which calls the same kernels from C++;
products from Python are for tests and benchmarks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from subllm.errors import BackendError, LayoutError
from subllm.kernels import native
from subllm.kernels.sparsity.packing import Floats, PackedTensor


class Pool:
    """Threads for products: at most `threads`, never more than usable CPUs; 0 is all."""

    def __init__(self, threads: int = 0) -> None:
        self.handle: Any = native.core().Pool(threads)

    @property
    def threads(self) -> int:
        return int(self.handle.threads)


class Matrix:
    """A packed tensor, checked and ready for products; its planes stay where they lie.

    `name` is for messages. Raises LayoutError when masks and values contradict each other.
    """

    def __init__(self, packed: PackedTensor, name: str = "a packed tensor") -> None:
        geometry = packed.check()
        scales = None if packed.scales is None else packed.scales.view(np.uint16)
        self.shape = packed.shape
        try:
            self.handle: Any = native.core().Matrix(
                *packed.shape,
                geometry.slots,
                packed.values,
                packed.mask,
                packed.offsets,
                packed.data,
                scales,
                packed.subscales,
            )
        except (ValueError, TypeError) as error:
            raise LayoutError(f"{name} is damaged: {error}; run 'subllm verify'") from error
        except RuntimeError as error:
            raise BackendError(str(error)) from error


def sum_words(pool: Pool, words: npt.NDArray[np.uint64]) -> int:
    """The sum of uint64 [n] modulo 2^64, read once by all threads of the pool."""
    return int(native.core().sum_words(pool.handle, words))


def isas() -> tuple[str, ...]:
    """Kernels that this CPU runs ("avx512", "avx_vnni", "avx2", "neon", "scalar"), best first."""
    return tuple(native.core().isas())


def multiply(
    packed: PackedTensor,
    x: Floats,
    *,
    bias: Floats | None = None,
    isa: str = "",
    threads: int = 0,
    exact: bool = False,
) -> Floats:
    """x float32 [T, C], finite -> float32 [T, R] = x @ W.T + bias.

    int8 and int4 weights meet activations that are rounded to int8 per token and 128
    columns, bf16 weights those rounded to bf16; `exact` keeps them as they are and sums in
    double. `isa` "" means what SUBLLM_ISA names, else the best.

    Raises BackendError for an `isa` that this CPU does not run, LayoutError as `Matrix`
    does and when `x` does not fit.
    """
    out = np.empty((x.shape[0], packed.shape[0]), np.float32)
    multiply_all(Pool(threads), [Matrix(packed)], x, [out], [bias], isa=isa, exact=exact)
    return out


def multiply_all(
    pool: Pool,
    matrices: Sequence[Matrix],
    x: Floats,
    outs: Sequence[Floats],
    biases: Sequence[Floats | None] | None = None,
    *,
    isa: str = "",
    exact: bool = False,
) -> None:
    """Fills outs[i], float32 [T, R_i], for every matrix in one parallel region; otherwise
    as `multiply`."""
    for array in (x, *outs):
        if array.ndim != 2 or array.dtype != np.float32:
            raise LayoutError(f"expected float32 matrices, not {array.dtype} {array.shape}")
    try:
        native.core().multiply(
            pool.handle,
            [matrix.handle for matrix in matrices],
            np.ascontiguousarray(x),
            list(outs),
            list(biases) if biases is not None else [None] * len(matrices),
            isa,
            exact,
        )
    except RuntimeError as error:
        raise BackendError(f"{error}; choose one of {', '.join(isas())}") from error
    except ValueError as error:
        raise LayoutError(f"cannot multiply: {error}") from error
