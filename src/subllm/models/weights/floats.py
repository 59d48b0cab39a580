"""Plain floating point storage types as float32."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FLOAT_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


def to_float32(kind: str, data: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Little-endian bytes of type F32, F16 or BF16 -> a new float32 array, flat."""
    if kind == "F32":
        return data.view("<f4").astype(np.float32)
    if kind == "F16":
        return data.view("<f2").astype(np.float32)
    wide = data.view("<u2").astype(np.uint32)
    wide <<= np.uint32(16)
    return wide.view(np.float32)
