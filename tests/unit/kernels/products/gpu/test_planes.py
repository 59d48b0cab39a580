"""What is laid out anew for GPUs reads back as the packed file does, bit for bit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from oracles.packed_matrices import DEVICE, packed_sample

from subllm.kernels.products.triton import plain
from subllm.kernels.products.triton.planes import DevicePacked
from subllm.kernels.sparsity.packing import Floats, PackedTensor, pack, unpack
from subllm.kernels.sparsity.pattern import Pattern
from subllm.kernels.sparsity.reference import pack_reference

VALUES = ("int4", "int8", "bf16")


def check(packed: PackedTensor) -> DevicePacked:
    weight = DevicePacked.from_packed(packed, DEVICE)
    got, want = plain.expand(weight).cpu().numpy(), unpack(packed)
    np.testing.assert_array_equal(got.view(np.int32), want.view(np.int32))
    return weight


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize(
    "pattern",
    [
        *("dense", "2:4", "1:4", "3:4", "4:8", "5:8", "7:8", "16:32", "31:32", "1:32", "13:32"),
        *(f"{n}:16" for n in range(1, 16)),
        *("50%", "70.5%", "3%"),
    ],
)
def test_every_pattern(values: str, pattern: str) -> None:
    check(packed_sample(21, 192, pattern, values))


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize(
    ("pattern", "rows", "cols"),
    [
        *(("2:4", 21, 204), ("6:8", 9, 456), ("3:4", 3, 4), ("50%", 21, 203), ("99%", 1, 70)),
        *(("dense", 21, 203), ("8:16", 70, 1040), ("11:16", 3, 576), ("17:32", 33, 320)),
    ],
)
def test_odd_shapes(values: str, pattern: str, rows: int, cols: int) -> None:
    check(packed_sample(rows, cols, pattern, values))


@pytest.mark.parametrize("values", VALUES)
def test_any_mask(values: str) -> None:
    """Empty rows and tiles, full rows, one kept weight at either end."""
    mask: npt.NDArray[np.bool_] = np.zeros((24, 300), np.bool_)
    mask[1] = True
    mask[2, 0] = mask[3, -1] = mask[4, 63] = mask[5, 64] = True
    mask[16:20, ::3] = mask[20:, 5:133] = True
    weights: Floats = np.random.default_rng(5).standard_normal(mask.shape).astype(np.float32)
    check(pack_reference(weights, mask, Pattern.parse("50%"), values))
    check(pack_reference(weights, np.zeros_like(mask), Pattern.parse("50%"), values))


def test_bytes_of_a_weight() -> None:
    """What a decode step reads is what it is in the file."""
    for pattern, values, bits in (
        ("8:16", "int4", 1 + 2 + 0.25 + 0.0625),
        ("11:16", "int4", 1 + 2.75 + 0.25 + 0.0625),
        ("8:16", "int8", 1 + 4 + 0.125),
        ("dense", "int4", 4 + 0.5 + 0.125),
        ("dense", "bf16", 16),
    ):
        weight = DevicePacked.from_packed(packed_sample(64, 512, pattern, values), DEVICE)
        assert weight.nbytes * 8 == 64 * 512 * bits


def test_planes_by_hand() -> None:
    """2:4 int8: row 1 keeps columns 1 and 2 of the first four, 0 and 3 of the second."""
    weights = np.zeros((2, 8), np.float32)
    weights[1] = [0, 127, -3, 0, 5, 0, 0, 7]
    mask = weights != 0
    mask[0, [0, 1, 4, 5]] = True
    weight = DevicePacked.from_packed(pack(weights, mask, "2:4", "int8"), DEVICE)
    assert weight.mask is not None and weight.mask.shape == (4, 32)
    assert weight.mask[:, 1].tolist() == [0b10010110, 0, 0, 0]
    assert weight.mask[0, 0] == 0b00110011 and not weight.mask[:, 2:].any()
    assert weight.codes.shape == (1, 64, 32)
    assert weight.codes[0, :8, 1].tolist() == [127, -3, 5, 7, 0, 0, 0, 0]
    assert weight.scales is not None and weight.scales[0, 1] == 1


def test_words_by_hand() -> None:
    """8:16 int4: eight values of 16 columns are a word, the first in its lowest bits."""
    weights = np.zeros((1, 128), np.float32)
    weights[0, :16:2] = [1, -2, 3, -4, 5, -6, 7, -8]
    mask = np.zeros((1, 128), np.bool_)
    mask[0, ::2] = True
    packed = pack(weights, mask, "8:16", "int4")
    weight = DevicePacked.from_packed(packed, DEVICE)
    assert weight.codes.shape == (1, 8, 32) and weight.codes.dtype == torch.int32
    word = int(weight.codes[0, 0, 0]) & 0xFFFFFFFF
    codes = [(word >> 4 * i & 15) - 8 for i in range(8)]
    sign = 1 if weight.scales is not None and float(weight.scales[0, 0, 0]) > 0 else -1
    assert codes == [sign * v for v in (1, -2, 3, -4, 5, -6, 7, -8)]
