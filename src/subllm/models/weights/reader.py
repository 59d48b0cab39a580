"""The one view of a model's weights: tensors by name, read when asked for.

Names are the architecture's (see `arch.spec`), whatever the file calls them, and
values are what the Hugging Face checkpoint would hold: readers undo what a file
format does to them (GGUF permutes llama's q and k and adds 1 to Gemma's norms).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from subllm.kernels.sparsity.int4 import Int4Rows
from subllm.models.arch.spec import ArchSpec


class WeightReader(Protocol):
    """Lazy access to the tensors of one model. Not thread-safe.

    Every method raises WeightsError for an unknown name or malformed file.
    """

    @property
    def config(self) -> dict[str, Any]:
        """The model's Hugging Face `config.json` (synthesised for GGUF)."""

    @property
    def spec(self) -> ArchSpec: ...

    @property
    def files(self) -> tuple[Path, ...]:
        """The files read from, in order."""

    def names(self) -> Sequence[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def dtype(self, name: str) -> str:
        """As the file stores it: "F32", "BF16", "F16", "Q4_K", ..."""

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """The whole tensor, dequantized, float32, C-contiguous, owned by the caller."""

    def rows(self, name: str, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Some rows of a matrix, float32 [len(indices), columns]; reads only those."""

    def holds_int4(self, name: str) -> bool:
        """Whether `int4` has the matrix; reads nothing."""

    def int4(self, name: str) -> Int4Rows | None:
        """The same matrix in the file's own codes, where int4 holds them without loss."""

    def tokenizer_files(self) -> dict[str, bytes]:
        """`tokenizer.json`, `tokenizer_config.json`, ... as bytes (converted for GGUF)."""

    def release(self) -> None:
        """Give mapped pages back to the system; later reads map them again."""

    def close(self) -> None: ...
