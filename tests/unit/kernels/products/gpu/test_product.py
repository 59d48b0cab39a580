"""Products of packed matrices against numpy: plain torch, or with TRITON_INTERPRET=1 the
kernels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles.packed_matrices import DEVICE, INTERPRETED, activations, packed_sample

from subllm.errors import BackendError
from subllm.kernels.products.reference import multiply_exact
from subllm.kernels.products.triton import plain
from subllm.kernels.products.triton_ops import DevicePacked, expand, implementation, packed_matmul
from subllm.kernels.sparsity.packing import Floats, PackedTensor, pack, unpack

VALUES = ("int4", "int8", "bf16")


EVERY = (
    *("dense", "2:4", "1:4", "3:4", "4:8", "5:8", "16:32", "31:32", "13:32", "50%", "3%", "90%"),
    *(f"{n}:16" for n in range(1, 16)),
)


def check(packed: PackedTensor, x: Floats) -> None:
    got = packed_matmul(torch.from_numpy(x).to(DEVICE), DevicePacked.from_packed(packed, DEVICE))
    want = multiply_exact(packed, x)
    np.testing.assert_allclose(got.cpu().numpy(), want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("pattern", EVERY)
def test_expanded(values: str, pattern: str) -> None:
    packed = packed_sample(21, 160, pattern, values)
    got, want = expand(DevicePacked.from_packed(packed, DEVICE)).cpu().numpy(), unpack(packed)
    np.testing.assert_array_equal(got.view(np.int32), want.view(np.int32))


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("pattern", ["dense", "8:16", "11:16", "16:32", "50%"])
def test_patterns(values: str, pattern: str) -> None:
    """1 to 8, 9 to 64 and more tokens."""
    packed = packed_sample(21, 160, pattern, values)
    for count in (1, 3, 9, 65):
        check(packed, activations(count, 160))


@pytest.mark.parametrize(
    ("pattern", "rows", "cols"),
    [
        *(("2:4", 21, 204), ("6:8", 9, 456), ("3:4", 3, 4), ("50%", 21, 203), ("99%", 1, 70)),
        *(("dense", 21, 203), ("8:16", 130, 272), ("11:16", 3, 576), ("17:32", 140, 64)),
    ],
)
def test_odd_shapes(pattern: str, rows: int, cols: int) -> None:
    packed = packed_sample(rows, cols, pattern, "int4")
    for count in (2, 17, 65):
        check(packed, activations(count, cols))


@pytest.mark.parametrize("pattern", ["dense", "8:16", "50%"])
def test_other_tokens_change_nothing(pattern: str) -> None:
    """Bit for bit, whatever NaN the others hold."""
    weight = DevicePacked.from_packed(packed_sample(21, 160, pattern, "int4"), DEVICE)
    x = torch.from_numpy(activations(20, 160)).to(DEVICE)
    for width in (8, 20):
        together = packed_matmul(x[:width], weight)
        spoilt = x[:width].clone()
        spoilt[1:] = torch.nan
        assert torch.equal(packed_matmul(spoilt, weight)[0], together[0])
    if kernels_run():
        for width in (1, 5):
            assert torch.equal(
                packed_matmul(x[:width], weight), packed_matmul(x[:8], weight)[:width]
            )


@pytest.mark.parametrize("count", [2, 20, 70])
def test_bfloat16(count: int) -> None:
    """Activations as a decoder has them, results too."""
    packed = packed_sample(21, 160, "11:16", "int4")
    weight = DevicePacked.from_packed(packed, DEVICE)
    x = torch.from_numpy(activations(count, 160)).to(DEVICE).bfloat16()
    if INTERPRETED and count > 8:
        x = x.half()  # the interpreter's own products of bfloat16 are wrong
    want = multiply_exact(packed, x.float().cpu().numpy())
    out = torch.empty((count, 21), dtype=torch.bfloat16)
    packed_matmul(x, weight, out=out)
    np.testing.assert_allclose(
        out.float().cpu().numpy(), want, rtol=0.01, atol=0.01 * np.abs(want).max()
    )


def test_slices_of_many_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scratch memory for fewer rows than there are."""
    if not kernels_run():
        pytest.skip("plain torch has no slices")
    from subllm.kernels.products.triton import product

    monkeypatch.setattr(product, "SCRATCH", 1)
    packed, x = packed_sample(140, 64, "8:16", "int8"), activations(66, 64)
    bias, residual = activations(1, 140, 3)[0], activations(66, 140, 4)
    got = packed_matmul(
        torch.from_numpy(x).to(DEVICE), DevicePacked.from_packed(packed, DEVICE),
        bias=torch.from_numpy(bias).to(DEVICE), residual=torch.from_numpy(residual).to(DEVICE),
    )  # fmt: skip
    want = multiply_exact(packed, x, bias) + residual
    np.testing.assert_allclose(got.cpu().numpy(), want, rtol=1e-4, atol=1e-4)


def kernels_run() -> bool:
    return implementation(DEVICE) is not plain


def test_bias_residual_and_out() -> None:
    """out may be the residual itself: then the stream takes up what the layer gives."""
    packed, x = packed_sample(21, 160, "8:16", "int4"), activations(2, 160)
    bias, stream = activations(1, 21, 3)[0], activations(2, 21, 4)
    want = multiply_exact(packed, x, bias) + stream
    out = torch.from_numpy(stream).to(DEVICE)
    weight = DevicePacked.from_packed(packed, DEVICE)
    got = packed_matmul(
        torch.from_numpy(x).to(DEVICE),
        weight,
        bias=torch.from_numpy(bias).to(DEVICE),
        residual=out,
        out=out,
    )
    assert got is out
    np.testing.assert_allclose(out.cpu().numpy(), want, rtol=1e-5, atol=1e-5)


def test_product_by_hand() -> None:
    weights = np.zeros((2, 8), np.float32)
    weights[0, [0, 3, 4, 7]] = [127, 2, 1, 1]
    weights[1, [1, 2, 5, 6]] = [-127, 1, 3, 4]
    packed = pack(weights, weights != 0, "2:4", "int8")
    x = torch.tensor([[1.0, 2, 3, 4, 5, 6, 7, 8]])
    got = packed_matmul(x, DevicePacked.from_packed(packed, DEVICE))
    assert got.tolist() == [[127 + 8 + 5 + 8, -254 + 3 + 18 + 28]]


def test_refusals() -> None:
    weight = DevicePacked.from_packed(packed_sample(8, 64, "8:16", "int8"), DEVICE)
    with pytest.raises(BackendError, match="x is"):
        packed_matmul(torch.zeros(1, 63), weight)
    with pytest.raises(BackendError, match="out is"):
        packed_matmul(torch.zeros(1, 64), weight, out=torch.zeros(1, 9))
