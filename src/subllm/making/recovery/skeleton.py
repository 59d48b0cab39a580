"""A decoder run block by block on packed rows.

Positions that count from each document's start make transformers keep documents of one row
apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from subllm.errors import ExtractionError
from subllm.making.recovery.decoder import Call, Recorder, empty_decoder, load_final_norm
from subllm.making.recovery.loss import Head
from subllm.making.recovery.rows import RecoveryText
from subllm.models.weights.reader import WeightReader

_ROWS = 16384  # of a large matrix, in float32 at a time


class Tables:
    """What student and teacher share: embedding rows of the tokens in use, and the head."""

    def __init__(
        self,
        reader: WeightReader,
        texts: Iterable[RecoveryText],
        device: torch.device,
        dtype: torch.dtype,
        vocabulary: int | None = None,
    ) -> None:
        """vocabulary: tokens that the head ranks, where those of another model count that pads
        its own differently. Raises ExtractionError for tokens outside the vocabulary."""
        spec = reader.spec
        self._used = np.unique(np.concatenate([np.unique(text.tokens) for text in texts]))
        if self._used[0] < 0 or self._used[-1] >= spec.vocab_size:
            raise ExtractionError(
                "tokens to learn from lie outside the model's vocabulary; "
                "tokenizer and weights do not belong together"
            )
        self.embedding = _rows(reader, spec.embedding_name, self._used, device, dtype)
        every = np.arange(min(spec.vocab_size, vocabulary or spec.vocab_size))
        self.head = Head(_rows(reader, spec.head_name, every, device, dtype), spec.final_softcap)
        reader.release()

    def compact(self, tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        """Tokens as rows of `embedding`."""
        return np.searchsorted(self._used, tokens).astype(np.int64)


class Skeleton:
    """Blocks without weights until they are loaded. Raises ExtractionError where
    transformers does not know the architecture."""

    def __init__(
        self, reader: WeightReader, tables: Tables, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.spec = reader.spec
        self.tables = tables
        self.device, self.dtype = device, dtype
        self._decoder = empty_decoder(reader, device, dtype)
        self.blocks: list[nn.Module] = list(self._decoder.layers)
        self.norm: nn.Module = self._decoder.norm
        self._calls: list[Call] = []
        self._decoder.layers = nn.ModuleList(Recorder(b, self._calls) for b in self.blocks)
        self._decoder.norm = nn.Identity()
        embedding = self._decoder.embed_tokens
        embedding.weight = nn.Parameter(tables.embedding, requires_grad=False)
        embedding.padding_idx = None  # ids are compacted, it would point elsewhere
        load_final_norm(self.norm, reader, device, dtype)

    def enter(self, text: RecoveryText, rows: list[int]) -> tuple[torch.Tensor, list[Call]]:
        """The first block's inputs for some rows of a text, [rows, length, hidden], and
        each block's call."""
        ids = torch.from_numpy(self.tables.compact(text.tokens[rows])).to(self.device)
        positions = torch.from_numpy(text.positions[rows]).to(self.device)
        self._calls.clear()
        with torch.no_grad():
            out = self._decoder(input_ids=ids, position_ids=positions, use_cache=False)
        calls = list(self._calls)
        self._calls.clear()
        hidden: torch.Tensor = out.last_hidden_state
        return hidden, calls

    def run(self, layer: int, hidden: torch.Tensor, call: Call) -> torch.Tensor:
        """A loaded block on hidden states [rows, length, hidden]."""
        out = self.blocks[layer](hidden, *call.args, **call.kwargs)
        result: torch.Tensor = out[0] if isinstance(out, tuple) else out
        return result


def learned_states(states: torch.Tensor, text: RecoveryText, rows: list[int]) -> torch.Tensor:
    """Of states [rows, length, hidden], those of positions that are learned, [n, hidden]."""
    index = torch.from_numpy(np.flatnonzero(text.learned[rows])).to(states.device)
    return states.reshape(-1, states.shape[-1]).index_select(0, index)


def _rows(
    reader: WeightReader,
    name: str,
    ids: npt.NDArray[Any],
    device: torch.device,
    dtype: torch.dtype,
) -> torch.Tensor:
    out = torch.empty(len(ids), reader.spec.hidden_size, dtype=dtype, device=device)
    for start in range(0, len(ids), _ROWS):
        part = ids[start : start + _ROWS].astype(np.int64)
        out[start : start + len(part)] = torch.from_numpy(reader.rows(name, part)).to(device)
    return out
