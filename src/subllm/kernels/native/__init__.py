"""The compiled core, `subllm._native`, and its GGUF decoder.

The C++ sources lie beside this file; `bindings/` alone knows Python.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from subllm.errors import BackendError, WeightsError


@cache
def core() -> Any:
    """The compiled module. Raises BackendError when it was not built or does not load."""
    try:
        return importlib.import_module("subllm._native")
    except ImportError as error:
        raise BackendError(
            f"the native module is missing or does not load ({error}); "
            "reinstall subllm, or run scripts/install --native in a checkout"
        ) from error


def dequantize(
    type_name: str,
    data: npt.NDArray[np.uint8],
    out: npt.NDArray[np.float32] | None = None,
    *,
    threads: int = 0,
) -> npt.NDArray[np.float32]:
    """Decodes the blocks of a GGUF tensor, bit for bit as the gguf package does.

    `type_name` is GGUF's ("Q4_K", "F16", ...); `data` is contiguous, of any shape and may
    be a mapped file. Returns flat float32; `out`, if given, is filled and returned (any
    shape, contiguous). Raises WeightsError for a type that is not supported, a partial
    block, or an `out` of another size or type.
    """
    if out is not None and (out.dtype != np.float32 or not out.flags.c_contiguous):
        raise WeightsError(f"cannot decode a {type_name} tensor: out is not contiguous float32")
    native = core()
    raw = np.ascontiguousarray(data).view(np.uint8)
    try:
        if out is None:
            out = np.empty(native.gguf_value_count(type_name, raw.size), np.float32)
        native.gguf_dequantize(type_name, raw, out, threads)
    except ValueError as error:
        raise WeightsError(f"cannot decode a {type_name} tensor: {error}") from error
    return out
