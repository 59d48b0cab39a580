"""The rows of an embedding that some tokens need, and no others."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from subllm.errors import ExtractionError
from subllm.making.extraction.blocks.protocol import EmbeddingRows
from subllm.models.weights.reader import WeightReader


def used_rows(
    reader: WeightReader, tokens: npt.NDArray[np.int32], rows: EmbeddingRows | None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The rows in use, float32 [n, hidden_size], and tokens as indices into them, of the
    tokens' shape. `rows` stands in for the reader's own embedding. Raises ExtractionError
    for tokens outside the vocabulary."""
    used, inverse = np.unique(tokens, return_inverse=True)
    if used[0] < 0 or used[-1] >= reader.spec.vocab_size:
        raise ExtractionError(
            "calibration tokens lie outside the model's vocabulary; "
            "tokenizer and weights do not belong together"
        )
    ids = used.astype(np.int64)
    table = rows(ids) if rows else reader.rows(reader.spec.embedding_name, ids)
    return table, inverse.reshape(tokens.shape).astype(np.int64)
