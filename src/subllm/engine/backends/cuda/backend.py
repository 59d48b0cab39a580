"""The backend on packed weights on a GPU: captured steps to decode, prompts in chunks beside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch

from subllm.engine.backend import KV_BLOCK, Choice, Choices, Chunk, TokenArray
from subllm.engine.backends.chunks import check_chunks, check_tokens
from subllm.engine.backends.cuda.check import check_kernels
from subllm.engine.backends.cuda.drawing import chosen
from subllm.engine.backends.cuda.kv import KvPool
from subllm.engine.backends.cuda.model import OneChunk, PackedModel, Rows
from subllm.engine.backends.cuda.steps import MOST_ROWS, Found, Row, SmallSteps
from subllm.engine.backends.cuda.weights import load_weights
from subllm.engine.backends.table import DTypeName
from subllm.engine.backends.torch.device import failures, pick_device
from subllm.engine.backends.torch.sampling import logprobs
from subllm.engine.request import TokenLogprob
from subllm.engine.weights import LoadableWeights
from subllm.errors import BackendError, LogitsError
from subllm.kernels.products.triton import plain
from subllm.kernels.products.triton_ops import greedy, implementation
from subllm.machine import usable_cores
from subllm.models.arch.kv_size import BLOCK

_FIRST_TOKENS = 2048
"""Room of the pool to begin with; it grows, and then graphs are captured anew."""
_SMALL = 2 * MOST_ROWS
"""Tokens of a chunk up to which it runs in small steps, as decoding does."""
_SCORE_ROWS = 64  # rows of logits held at once

assert KV_BLOCK == BLOCK


class CudaBackend:
    """Implements `engine.backend.Backend`."""

    def __init__(
        self,
        source: LoadableWeights,
        *,
        device: str = "cuda",
        dtype: DTypeName = "bfloat16",
        threads: int | None = None,
        kv_room: int | None = None,
    ) -> None:
        """Copies the weights to the device, and captures a first step.

        device   also "cpu", where it is slow: to see that the same comes out
        dtype    of activations, keys and values
        threads  on the CPU; None: all cores that this process may use
        kv_room  bytes that keys and values may take; None: no bound

        Raises WeightsError for weights that do not fit the architecture, DeviceError when the
        device is missing or its memory is too small, KernelError when a kernel fails on it.
        """
        self._device = pick_device(device)
        self._spec = source.spec
        self._kv_room = kv_room
        if self._device.type == "cpu":
            torch.set_num_threads(threads or usable_cores())
        kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
        with self._working("the weights"):
            self._model = PackedModel(source.spec, load_weights(source, self._device), kind)
            if self._device.type == "cuda":
                check_kernels(self._model.weights, kind)
            blocks = _FIRST_TOKENS // KV_BLOCK
            self._pool = KvPool(source.spec, kind, self._device, blocks)
            self._steps = SmallSteps(self._model, self._pool, self._device)
            if self._steps.captures:
                self._steps.prepare()
        self._closed = False

    @property
    def vocab_size(self) -> int:
        return self._spec.vocab_size

    @property
    def resident_bytes(self) -> int:
        """Of the pool, what slabs hold."""
        return self._model.weights.nbytes + self._pool.nbytes

    @property
    def kv_bytes_per_token(self) -> int:
        return self._pool.block_bytes // KV_BLOCK

    @property
    def kv_shares(self) -> bool:
        return True

    @property
    def kv_room(self) -> int | None:
        return self._kv_room

    @property
    def exact_widths(self) -> bool:
        """The kernels sum in an order of their own; torch's libraries choose by shape."""
        return implementation(self._device.type) is not plain

    def kv_open(self) -> int:
        self._check_open()
        return self._pool.open()

    def kv_fork(self, source: int, length: int) -> int:
        self._check_open()
        with self._working("keys and values"):
            return self._pool.fork(source, length)

    def kv_close(self, handle: int) -> None:
        self._check_open()
        self._pool.close(handle)

    def step(self, chunks: Sequence[Chunk]) -> list[Choices]:
        self._check_open()
        tokens = check_chunks(chunks, self.vocab_size, self._spec.context_length)
        with self._working("this step"):
            self._pool.write([(c.kv, c.start, len(t)) for c, t in zip(chunks, tokens, strict=True)])
            choices: dict[int, list[Choice | LogitsError]] = {}
            small = [i for i, found in enumerate(tokens) if len(found) <= _SMALL]
            for index, found in self._small([(chunks[i], tokens[i]) for i in small]):
                choices[small[index]] = found
            for i, chunk in enumerate(chunks):
                if i not in choices:
                    choices[i] = self._large(chunk, tokens[i])
        return [tuple(choices[i]) for i in range(len(chunks))]

    def score(
        self, kv: int, start: int, tokens: TokenArray, targets: TokenArray, top: int
    ) -> list[TokenLogprob]:
        self._check_open()
        (ids,) = check_chunks(
            [Chunk(kv, start, tokens)], self.vocab_size, self._spec.context_length
        )
        wanted = check_tokens(targets, self.vocab_size).tolist()
        if len(wanted) > len(ids) or not 0 <= top <= self.vocab_size:
            raise BackendError(f"{len(wanted)} targets with {top} alternatives cannot be scored")
        result: list[TokenLogprob] = []
        with self._working("this step"):
            self._pool.write([(kv, start, len(ids))])
            hidden = self._hidden(kv, start, ids)
            for first in range(0, len(wanted), _SCORE_ROWS):
                part = slice(first, min(first + _SCORE_ROWS, len(wanted)))
                result += logprobs(self._model.logits(hidden[part]), wanted[part], top)
        return result

    def logits(self, kv: int, start: int, tokens: TokenArray) -> npt.NDArray[np.float32]:
        """float32 [tokens, vocab] of a chunk, for tests; memory grows with both."""
        (ids,) = check_chunks(
            [Chunk(kv, start, tokens)], self.vocab_size, self._spec.context_length
        )
        with self._working("this step"):
            self._pool.write([(kv, start, len(ids))])
            if len(ids) <= _SMALL:
                found = self._steps.run(self._rows(kv, start, ids)).logits
            else:
                found = self._model.logits(self._hidden(kv, start, ids))
            return found.cpu().numpy()

    def close(self) -> None:
        self._check_open()
        self._closed = True
        del self._model, self._pool, self._steps
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _small(
        self, work: Sequence[tuple[Chunk, TokenArray]]
    ) -> Iterator[tuple[int, list[Choice | LogitsError]]]:
        """Choices of the chunks by their number in `work`, all in the same steps."""
        if not work:
            return
        rows = [row for c, tokens in work for row in self._rows(c.kv, c.start, tokens)]
        found = self._steps.run(rows)
        ends = np.cumsum([len(tokens) for _, tokens in work]).tolist()
        drawn = [
            (end - len(chunk.draws) + i, draw)
            for end, (chunk, _) in zip(ends, work, strict=True)
            for i, draw in enumerate(chunk.draws)
        ]
        choices = iter(chosen(found, drawn))
        for index, (chunk, _) in enumerate(work):
            yield index, [next(choices) for _ in chunk.draws]

    def _large(self, chunk: Chunk, tokens: TokenArray) -> list[Choice | LogitsError]:
        hidden = self._hidden(chunk.kv, chunk.start, tokens)
        choices: list[Choice | LogitsError] = []
        first = len(tokens) - len(chunk.draws)
        for start in range(0, len(chunk.draws), _SMALL):
            draws = chunk.draws[start : start + _SMALL]
            logits = self._model.logits(hidden[first + start : first + start + len(draws)])
            choices += chosen(Found(logits, greedy(logits)), list(enumerate(draws)))
        return choices

    def _rows(self, kv: int, start: int, tokens: TokenArray) -> list[Row]:
        blocks = self._pool.of(kv).blocks
        return [Row(token, start + i, blocks) for i, token in enumerate(tokens.tolist())]

    def _hidden(self, kv: int, start: int, tokens: TokenArray) -> torch.Tensor:
        """Of a chunk whose positions are the slab's own, all rows in one pass."""
        count = len(tokens)
        blocks = self._pool.of(kv).blocks[: -(-(start + count) // KV_BLOCK)]
        places = np.arange(start, start + count)
        table = np.array(blocks, np.int64)
        slots = table[places // KV_BLOCK] * KV_BLOCK + places % KV_BLOCK
        sent = [
            torch.from_numpy(a).to(self._device) for a in (tokens.astype(np.int64), places, slots)
        ]
        attention = OneChunk(self._spec, torch.from_numpy(table).to(self._device), start)
        return self._model.hidden(Rows(*sent), self._pool, attention)

    @contextmanager
    def _working(self, what: str) -> Iterator[None]:
        """On the device, whose failures are DeviceError."""
        with failures(self._device, what), torch.inference_mode():
            if self._device.type == "cuda":
                with torch.cuda.device(self._device):
                    yield
            else:
                yield

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("the model is closed; load it again")
