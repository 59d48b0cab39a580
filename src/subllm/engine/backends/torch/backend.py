"""The torch backend: weights dequantized once at load, any device that torch has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from subllm.engine.backend import Choice, Choices, Chunk, TokenArray
from subllm.engine.backends.torch.device import failures, pick_device
from subllm.engine.backends.torch.drawing import choose
from subllm.engine.backends.torch.kv import KvSlab
from subllm.engine.backends.torch.model import TorchModel
from subllm.engine.backends.torch.sampling import logprobs
from subllm.engine.backends.torch.weights import load_weights
from subllm.engine.placement import Form
from subllm.engine.request import TokenLogprob
from subllm.engine.weights import WeightSource
from subllm.errors import LogitsError
from subllm.machine import usable_cores

DType = Literal["bfloat16", "float32"]

_DRAW_ROWS = 16  # rows of logits held at once while drawing
_SCORE_ROWS = 64  # rows of logits held at once while scoring: 39 MB at 152k tokens


class TorchBackend:
    """Implements `engine.backend.Backend`."""

    def __init__(
        self,
        source: WeightSource,
        *,
        device: str = "cpu",
        dtype: DType = "bfloat16",
        threads: int | None = None,
        form: Form = "bf16",
        layers: int | None = None,
        kv_room: int | None = None,
    ) -> None:
        """Loads everything.

        threads  None: all cores that this process may use
        form, layers  of the weights, see `load_weights`
        kv_room  bytes that keys and values may take; None: no bound

        Raises DeviceError when the device is missing or its memory is too small, BackendError
        where a form wants a package that is not there.
        """
        self._device = pick_device(device)
        self._dtype = torch.bfloat16 if dtype == "bfloat16" else torch.float32
        if self._device.type == "cpu":
            torch.set_num_threads(threads or usable_cores())
        with failures(self._device, "the weights"), torch.inference_mode():
            weights = load_weights(source, self._dtype, self._device, form, layers)
            self._model = TorchModel(source.spec, weights)
        self._spec = source.spec
        self._kv_room = kv_room
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
    def kv_room(self) -> int | None:
        return self._kv_room

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
        with failures(self._device, "keys and values"):
            self._slabs[handle].copy_from(self._slabs[source], length)
        return handle

    def kv_close(self, handle: int) -> None:
        del self._slabs[handle]

    @torch.inference_mode()
    def step(self, chunks: Sequence[Chunk]) -> list[Choices]:
        if not chunks:
            return []
        with failures(self._device, "this step"):
            return self._step(chunks)

    def _step(self, chunks: Sequence[Chunk]) -> list[Choices]:
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
            choices += choose(self._model.logits(hidden[rows[part]]), draws[part])
        drawn = iter(choices)
        return [tuple(next(drawn) for _ in chunk.draws) for chunk in chunks]

    @torch.inference_mode()
    def score(
        self, kv: int, start: int, tokens: TokenArray, targets: TokenArray, top: int
    ) -> list[TokenLogprob]:
        with failures(self._device, "this step"):
            hidden = self._forward([Chunk(kv, start, tokens)])[: len(targets)]
            result: list[TokenLogprob] = []
            for first in range(0, len(targets), _SCORE_ROWS):
                part = slice(first, first + _SCORE_ROWS)
                result += logprobs(self._model.logits(hidden[part]), targets[part].tolist(), top)
        return result

    def close(self) -> None:
        self._slabs.clear()
        del self._model
        if self._device.type == "cuda":
            torch.cuda.empty_cache()  # others may want it

    def _forward(self, chunks: Sequence[Chunk]) -> torch.Tensor:
        tokens = np.concatenate([chunk.tokens for chunk in chunks]).astype(np.int64)
        return self._model.hidden(
            torch.from_numpy(tokens).to(self._device),
            [(self._slabs[c.kv], c.start, len(c.tokens)) for c in chunks],
        )
