"""A GGUF file as a `WeightReader`: checkpoint names, checkpoint values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from subllm.errors import WeightsError
from subllm.kernels import native
from subllm.kernels.sparsity.int4 import Int4Rows
from subllm.models.arch.registry import spec_from_config
from subllm.models.arch.spec import ArchSpec
from subllm.models.arch.tensors import tensor_shapes
from subllm.models.weights.checks import check_indices, check_shapes, unknown_tensor
from subllm.models.weights.floats import FLOAT_BYTES, to_float32
from subllm.models.weights.gguf_config import config_from_gguf
from subllm.models.weights.gguf_file import GgufFile, TensorInfo
from subllm.models.weights.gguf_names import checkpoint_name, is_permuted, is_shifted
from subllm.models.weights.gguf_tokenizer import tokenizer_files
from subllm.models.weights.q4_k import int4_of_q4_k

# Rotary factors are in the config; Llama 3's are checked here since only the file has them.
_ROPE_FACTORS = "rope_freqs.weight"


class GgufReader:
    """Tensors of one GGUF file, dequantized when read. See `WeightReader`."""

    def __init__(self, path: Path) -> None:
        """Raises WeightsError for a malformed file, an unsupported architecture, a
        missing or unknown tensor, or one of the wrong shape."""
        self._file = GgufFile(path)
        try:
            self._config = config_from_gguf(self._file)
            self._spec = spec_from_config(self._config)
            self._architecture = str(self._file.metadata["general.architecture"])
            self._tensors = self._map_names()
            check_shapes(path, self._spec, {n: t.shape for n, t in self._tensors.items()})
        except BaseException:
            self._file.file.close()
            raise

    def _map_names(self) -> dict[str, TensorInfo]:
        tensors: dict[str, TensorInfo] = {}
        for name, info in self._file.tensors.items():
            if name == _ROPE_FACTORS:
                raise WeightsError(
                    f"{self._file.path} scales its rotary frequencies one by one, which a GGUF "
                    "does not describe fully; use the safetensors checkpoint"
                )
            mapped = checkpoint_name(self._architecture, name)
            if mapped is None:
                raise WeightsError(
                    f"{self._file.path}: tensor {name!r} is unknown to architecture "
                    f"{self._architecture!r}; use the safetensors checkpoint"
                )
            tensors[mapped] = info
        order = tensor_shapes(self._spec)
        return {name: tensors[name] for name in order if name in tensors}

    @property
    def config(self) -> dict[str, Any]:
        return self._config

    @property
    def spec(self) -> ArchSpec:
        return self._spec

    @property
    def files(self) -> tuple[Path, ...]:
        return (self._file.path,)

    def names(self) -> Sequence[str]:
        return tuple(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._info(name).shape

    def dtype(self, name: str) -> str:
        return self._info(name).kind

    def read(self, name: str) -> npt.NDArray[np.float32]:
        info = self._info(name)
        return self._values(name, info, self._ordered_rows(name, info)).reshape(info.shape)

    def rows(self, name: str, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        info = self._info(name)
        check_indices(name, info.shape, indices)
        if is_permuted(self._architecture, name):
            indices = self._row_order(name, info)[indices]
        raw = self._raw_rows(info)[indices]
        return self._values(name, info, raw).reshape(len(indices), info.shape[1])

    def holds_int4(self, name: str) -> bool:
        info = self._info(name)
        shifted = is_shifted(self._architecture, name)
        return info.kind == "Q4_K" and len(info.shape) == 2 and not shifted

    def int4(self, name: str) -> Int4Rows | None:
        if not self.holds_int4(name):
            return None
        return int4_of_q4_k(self._ordered_rows(name, self._info(name)))

    def tokenizer_files(self) -> dict[str, bytes]:
        files = tokenizer_files(self._file)
        self.release()
        return files

    def release(self) -> None:
        self._file.file.release()

    def close(self) -> None:
        self._tensors = {}
        self._file.file.close()

    def _info(self, name: str) -> TensorInfo:
        try:
            return self._tensors[name]
        except KeyError:
            raise unknown_tensor(self._file.path, name, self._tensors) from None

    def _raw_rows(self, info: TensorInfo) -> npt.NDArray[np.uint8]:
        """uint8 [rows, bytes of a row]; a vector counts as rows of one element."""
        rows = info.shape[0]
        return self._file.data(info.name).reshape(rows, info.size // rows)

    def _ordered_rows(self, name: str, info: TensorInfo) -> npt.NDArray[np.uint8]:
        """All rows in the checkpoint's order."""
        raw = self._raw_rows(info)
        return raw[self._row_order(name, info)] if is_permuted(self._architecture, name) else raw

    def _row_order(self, name: str, info: TensorInfo) -> npt.NDArray[np.int64]:
        """For each checkpoint row of q or k, the file's row that holds it.

        The converter turned the two rotary halves of a head into interleaved pairs.
        """
        heads = self._spec.num_heads if ".q_proj." in name else self._spec.num_kv_heads
        order = np.arange(info.shape[0], dtype=np.int64)
        return order.reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)

    def _values(
        self, name: str, info: TensorInfo, raw: npt.NDArray[np.uint8]
    ) -> npt.NDArray[np.float32]:
        flat = raw.reshape(-1)
        if info.kind in FLOAT_BYTES:
            values = to_float32(info.kind, flat)
        else:
            values = native.dequantize(info.kind, flat)
        if is_shifted(self._architecture, name):
            values -= np.float32(1)
        return values
