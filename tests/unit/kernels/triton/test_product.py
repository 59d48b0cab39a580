"""Products of packed matrices against numpy: plain torch, or with TRITON_INTERPRET=1 the
kernels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles.packed_matrices import activations, packed_sample

from subllm.errors import BackendError
from subllm.kernels.reference import multiply_exact
from subllm.kernels.triton_ops import DevicePacked, packed_matmul
from subllm.sparsity.packing import Floats, PackedTensor, pack

VALUES = ("int4", "int8", "bf16")


def check(packed: PackedTensor, x: Floats) -> None:
    got = packed_matmul(torch.from_numpy(x), DevicePacked.from_packed(packed, "cpu"))
    want = multiply_exact(packed, x)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("pattern", ["dense", "8:16", "11:16", "16:32", "50%"])
def test_patterns(values: str, pattern: str) -> None:
    check(packed_sample(21, 160, pattern, values), activations(3, 160))


def test_bias_residual_and_out() -> None:
    """out may be the residual itself: then the stream takes up what the layer gives."""
    packed, x = packed_sample(21, 160, "8:16", "int4"), activations(2, 160)
    bias, stream = activations(1, 21, 3)[0], activations(2, 21, 4)
    want = multiply_exact(packed, x, bias) + stream
    out = torch.from_numpy(stream)
    weight = DevicePacked.from_packed(packed, "cpu")
    got = packed_matmul(
        torch.from_numpy(x), weight, bias=torch.from_numpy(bias), residual=out, out=out
    )
    assert got is out
    np.testing.assert_allclose(out.numpy(), want, rtol=1e-5, atol=1e-5)


def test_product_by_hand() -> None:
    weights = np.zeros((2, 8), np.float32)
    weights[0, [0, 3, 4, 7]] = [127, 2, 1, 1]
    weights[1, [1, 2, 5, 6]] = [-127, 1, 3, 4]
    packed = pack(weights, weights != 0, "2:4", "int8")
    x = torch.tensor([[1.0, 2, 3, 4, 5, 6, 7, 8]])
    got = packed_matmul(x, DevicePacked.from_packed(packed, "cpu"))
    assert got.tolist() == [[127 + 8 + 5 + 8, -254 + 3 + 18 + 28]]


def test_refusals() -> None:
    weight = DevicePacked.from_packed(packed_sample(8, 64, "8:16", "int8"), "cpu")
    with pytest.raises(BackendError, match="x is"):
        packed_matmul(torch.zeros(1, 63), weight)
    with pytest.raises(BackendError, match="out is"):
        packed_matmul(torch.zeros(1, 64), weight, out=torch.zeros(1, 9))
