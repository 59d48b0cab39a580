"""GGUF blocks, decoded bit for bit as the gguf package does."""

from __future__ import annotations

import gguf
import numpy as np
import numpy.typing as npt
import pytest

from subllm.errors import WeightsError
from subllm.kernels import native

# Where the binary16 scales of a block lie.
SCALES = {
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,),
    "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,),
}  # fmt: skip
# Zeros, subnormals (least, greatest), least normal, one, greatest; of both signs.
EDGES = np.array([0x0000, 0x0001, 0x03FF, 0x0400, 0x3C00, 0x7BFF], np.uint16)
EDGES = np.concatenate([EDGES, EDGES | np.uint16(0x8000)])


def block_bytes(kind: str) -> int:
    return int(gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][1])


def random_blocks(kind: str, blocks: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Random codes under finite scales, among them every edge of binary16."""
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 256, (blocks, block_bytes(kind)), np.uint8)
    for at in SCALES[kind]:
        halves = (rng.standard_normal(blocks) * 0.02).astype(np.float16).view(np.uint16)
        halves[rng.permutation(blocks)[: EDGES.size]] = EDGES
        raw[:, at : at + 2] = halves[:, None].view(np.uint8)
    return raw


def reference(kind: str, raw: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    values = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[kind])
    return np.ascontiguousarray(values, np.float32).reshape(-1)


@pytest.mark.parametrize("kind", SCALES)
def test_quantized_blocks(kind: str) -> None:
    raw = random_blocks(kind, 400)
    values = native.dequantize(kind, raw)
    assert values.dtype == np.float32 and values.ndim == 1
    assert values.tobytes() == reference(kind, raw).tobytes()


@pytest.mark.parametrize("kind", ["F16", "BF16", "F32"])
@pytest.mark.parametrize("count", [1, 31, 32, 33, 4099])
def test_plain_values(kind: str, count: int) -> None:
    width = 4 if kind == "F32" else 2
    raw = np.random.default_rng(count).integers(0, 256, (count, width), np.uint8)
    exponent = {"F16": 0x7C, "BF16": 0x7F, "F32": 0x7F}[kind]
    raw[raw[:, -1] & exponent == exponent, -1] ^= 0x40  # neither infinity nor NaN
    raw = raw.reshape(-1)
    assert native.dequantize(kind, raw).tobytes() == reference(kind, raw).tobytes()


def test_every_binary16() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16)
    values = native.dequantize("F16", halves.view(np.uint8))
    want = halves.view(np.float16).astype(np.float32)
    assert np.array_equal(np.isnan(values), np.isnan(want))
    finite = ~np.isnan(want)
    assert values[finite].tobytes() == want[finite].tobytes()


@pytest.mark.parametrize("kind", SCALES)
def test_threads_do_not_change_the_values(kind: str) -> None:
    values_per_block = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][0]
    raw = random_blocks(kind, 3 * (1 << 16) // values_per_block + 1)  # work for four threads
    alone = native.dequantize(kind, raw, threads=1)
    for threads in (2, 3, 4, 0):
        assert native.dequantize(kind, raw, threads=threads).tobytes() == alone.tobytes()


@pytest.mark.parametrize("kind", [*SCALES, "F16", "BF16", "F32"])
def test_partial_blocks_are_refused(kind: str) -> None:
    size = block_bytes(kind)
    assert native.dequantize(kind, np.zeros(0, np.uint8)).size == 0
    for count in (1, size - 1, size + 1, 3 * size + size // 2):
        with pytest.raises(WeightsError, match="whole number"):
            native.dequantize(kind, np.zeros(count, np.uint8))


def test_into_an_array_of_the_callers() -> None:
    raw = random_blocks("Q4_K", 16)
    out = np.empty((16, 256), np.float32)
    assert native.dequantize("Q4_K", raw, out) is out
    assert out.tobytes() == reference("Q4_K", raw).tobytes()
    with pytest.raises(WeightsError, match="elements"):
        native.dequantize("Q4_K", raw, np.empty(255, np.float32))
    with pytest.raises(WeightsError, match="float32"):
        native.dequantize("Q4_K", raw, np.empty(4096, np.float64))  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match="float32"):
        native.dequantize("Q4_K", raw, np.empty((4096, 2), np.float32)[:, 0])


def test_read_only_and_strided_input() -> None:
    raw = random_blocks("Q8_0", 40)
    raw.flags.writeable = False
    assert native.dequantize("Q8_0", raw).tobytes() == reference("Q8_0", raw).tobytes()
    every_second = native.dequantize("Q8_0", raw[::2])
    assert every_second.tobytes() == reference("Q8_0", raw[::2]).tobytes()


def test_unknown_types_are_refused() -> None:
    with pytest.raises(WeightsError, match="IQ2_XXS"):
        native.dequantize("IQ2_XXS", np.zeros(66, np.uint8))
