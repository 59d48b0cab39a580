"""The torch backend: weights dequantized once at load, any device that torch has."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Literal

import numpy as np
import torch

from subllm.errors import BackendError, LogitsError
from subllm.machine import usable_cores
from subllm.runtime.backend import Choice, Choices, Chunk, Draw, TokenArray
from subllm.runtime.backends.torch.kv import KvSlab
from subllm.runtime.backends.torch.model import TorchModel
from subllm.runtime.backends.torch.sampling import logprobs, sample, without_nan
from subllm.runtime.backends.torch.weights import load_weights
from subllm.runtime.request import TokenLogprob
from subllm.runtime.sampler import needs_adjustment
from subllm.runtime.weights import WeightSource

DType = Literal["bfloat16", "float32"]

_DRAW_ROWS = 16  # rows of logits held at once while drawing
_SCORE_ROWS = 64  # rows of logits held at once while scoring: 39 MB at 152k tokens


def pick_device(device: str) -> torch.device:
    """ "auto" is CUDA where there is one, else the CPU. Raises BackendError for a device
    that torch does not know or this machine does not have."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        picked = torch.device(device)
        torch.empty(1, device=picked).cpu()  # an absent one shows only when it is used
    except (RuntimeError, AssertionError) as error:
        if device.partition(":")[0] == "cuda":
            reason = "no such CUDA device is usable here; choose cpu (--device or SUBLLM_DEVICE)"
        else:
            reason = f"device {device!r} is unknown here; use auto, cpu or cuda"
        raise BackendError(reason) from error
    return picked


class TorchBackend:
    """Implements `runtime.backend.Backend`."""

    def __init__(
        self,
        source: WeightSource,
        *,
        device: str = "auto",
        dtype: DType = "bfloat16",
        threads: int | None = None,
    ) -> None:
        """Loads everything. `threads` None: all cores that this process may use.

        Raises BackendError when the device is missing or its memory is too small.
        """
        self._device = pick_device(device)
        self._dtype = torch.bfloat16 if dtype == "bfloat16" else torch.float32
        if self._device.type == "cpu":
            torch.set_num_threads(threads or usable_cores())
        try:
            with torch.inference_mode():
                weights = load_weights(source, self._dtype, self._device)
                self._model = TorchModel(source.spec, weights)
        except torch.OutOfMemoryError as error:
            raise BackendError(
                f"the weights do not fit the memory of {self._device}; choose cpu "
                "(--device or SUBLLM_DEVICE)"
            ) from error
        self._spec = source.spec
        self._slabs: dict[int, KvSlab] = {}
        self._next_handle = 0

    @property
    def vocab_size(self) -> int:
        return self._spec.vocab_size

    @property
    def resident_bytes(self) -> int:
        return self._model.weights.nbytes + sum(s.nbytes for s in self._slabs.values())

    @property
    def kv_bytes_per_token(self) -> int:
        per_layer = 2 * self._spec.num_kv_heads * self._spec.head_dim
        return self._spec.num_layers * per_layer * self._dtype.itemsize

    @property
    def kv_shares(self) -> bool:
        return False  # slabs are contiguous

    @property
    def exact_widths(self) -> bool:
        return False  # libraries choose another kernel for another shape

    def kv_open(self) -> int:
        self._next_handle += 1
        self._slabs[self._next_handle] = KvSlab(self._spec, self._dtype, self._device)
        return self._next_handle

    @torch.inference_mode()
    def kv_fork(self, source: int, length: int) -> int:
        handle = self.kv_open()
        self._slabs[handle].copy_from(self._slabs[source], length)
        return handle

    def kv_close(self, handle: int) -> None:
        del self._slabs[handle]

    @torch.inference_mode()
    def step(self, chunks: Sequence[Chunk]) -> list[Choices]:
        hidden = self._forward(chunks)
        ends = np.cumsum([len(chunk.tokens) for chunk in chunks])
        rows = [
            int(end) - len(chunk.draws) + i
            for end, chunk in zip(ends, chunks, strict=True)
            for i in range(len(chunk.draws))
        ]
        draws = [draw for chunk in chunks for draw in chunk.draws]
        choices: list[Choice | LogitsError] = []
        for first in range(0, len(rows), _DRAW_ROWS):
            part = slice(first, first + _DRAW_ROWS)
            choices += _choose(self._model.logits(hidden[rows[part]]), draws[part])
        drawn = iter(choices)
        return [tuple(next(drawn) for _ in chunk.draws) for chunk in chunks]

    @torch.inference_mode()
    def score(
        self, kv: int, start: int, tokens: TokenArray, targets: TokenArray, top: int
    ) -> list[TokenLogprob]:
        hidden = self._forward([Chunk(kv, start, tokens)])[: len(targets)]
        result: list[TokenLogprob] = []
        for rows, wanted in zip(
            torch.split(hidden, _SCORE_ROWS),
            (targets[i : i + _SCORE_ROWS] for i in range(0, len(targets), _SCORE_ROWS)),
            strict=True,
        ):
            result += logprobs(self._model.logits(rows), wanted.tolist(), top)
        return result

    def close(self) -> None:
        self._slabs.clear()
        del self._model

    def _forward(self, chunks: Sequence[Chunk]) -> torch.Tensor:
        tokens = np.concatenate([chunk.tokens for chunk in chunks]).astype(np.int64)
        try:
            return self._model.hidden(
                torch.from_numpy(tokens).to(self._device),
                [(self._slabs[c.kv], c.start, len(c.tokens)) for c in chunks],
            )
        except torch.OutOfMemoryError as error:
            raise BackendError(
                f"{self._device} has no memory left for this step; "
                "lower the context length or the number of parallel requests"
            ) from error


def _choose(logits: torch.Tensor, draws: Sequence[Draw]) -> list[Choice | LogitsError]:
    """One choice for each row of float32 [rows, vocab], or why there is none."""
    peaks, best = (found.tolist() for found in without_nan(logits).max(-1))
    return [
        _choose_one(logits[row : row + 1], draw, best[row] if isfinite(peaks[row]) else None)
        for row, draw in enumerate(draws)
    ]


def _choose_one(logits: torch.Tensor, draw: Draw, best: int | None) -> Choice | LogitsError:
    """From float32 [1, vocab]. `best`: the largest, None where that is not finite."""
    if best is None:
        return LogitsError()
    wanted = 0 if draw.estimate and draw.params.logprobs is None else draw.params.logprobs
    changed = needs_adjustment(draw.params) or draw.allowed is not None
    plain = draw.params.temperature == 0.0 and not changed
    try:
        token = best if plain else sample(logits[0], draw)
    except LogitsError as error:  # bias and penalties can do that, too
        return error
    return Choice(token, None if wanted is None else logprobs(logits, [token], wanted)[0])
