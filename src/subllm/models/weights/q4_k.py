"""Q4_K blocks of a GGUF file as int4 and back: the same codes, scales and minima, nothing
rounded."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from subllm.kernels.sparsity.int4 import Int4Rows

BLOCK_BYTES = 144
COLS = 256
LARGEST_PART = 63


def int4_of_q4_k(raw: npt.NDArray[np.uint8]) -> Int4Rows:
    """uint8 [rows, blocks * 144] -> weights [rows, blocks * 256].

    A block is two binary16 (scale, minimum), eight 6-bit parts of each in 12 bytes, and 128
    bytes of codes: of every 64 columns the first 32 in low nibbles, the others in high ones.
    """
    rows = len(raw)
    blocks = raw.reshape(rows, -1, BLOCK_BYTES)
    scales = np.ascontiguousarray(blocks[:, :, :4]).view("<f2")
    low, minima, both = blocks[:, :, 4:8], blocks[:, :, 8:12], blocks[:, :, 12:16]
    parts = np.empty((rows, blocks.shape[1], 2, 8), np.uint8)
    parts[:, :, 0, :4] = low & 0x3F
    parts[:, :, 1, :4] = minima & 0x3F
    parts[:, :, 0, 4:] = (both & 0x0F) | ((low >> 2) & 0x30)
    parts[:, :, 1, 4:] = (both >> 4) | ((minima >> 2) & 0x30)
    nibbles = blocks[:, :, 16:].reshape(rows, -1, COLS // 64, 1, 32)
    codes = np.concatenate([nibbles & 15, nibbles >> 4], axis=3)
    return Int4Rows(codes.reshape(rows, -1), scales.astype(np.float16, copy=False), parts)


def q4_k_of_int4(rows: Int4Rows) -> npt.NDArray[np.uint8]:
    """The reverse: uint8 [rows, blocks * 144] of weights [rows, blocks * 256] with minima, whose
    parts are LARGEST_PART at most."""
    count, blocks = rows.scales.shape[:2]
    raw = np.empty((count, blocks, BLOCK_BYTES), np.uint8)
    raw[:, :, :4] = np.ascontiguousarray(rows.scales, "<f2").view(np.uint8)
    steps, minima = rows.parts[:, :, 0], rows.parts[:, :, 1]
    raw[:, :, 4:8] = steps[:, :, :4] | ((steps[:, :, 4:] >> 4) << 6)
    raw[:, :, 8:12] = minima[:, :, :4] | ((minima[:, :, 4:] >> 4) << 6)
    raw[:, :, 12:16] = (steps[:, :, 4:] & 15) | ((minima[:, :, 4:] & 15) << 4)
    codes = rows.codes.reshape(count, blocks, COLS // 64, 2, 32)
    raw[:, :, 16:] = (codes[:, :, :, 0] | (codes[:, :, :, 1] << 4)).reshape(count, blocks, -1)
    return raw.reshape(count, -1)
