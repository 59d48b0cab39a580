"""Small steps: rows that decode, or check guesses, a few at a time and always in the same way.

A group of at most MOST_ROWS rows is filled up to a power of two, its tables to a width that is
one, and what a step of that size takes lies in buffers that stay where they are. So a CUDA graph
can be captured of it, once for each size, and a step is a copy of a few numbers to the device
and one launch. Where there are no graphs (on the CPU, or where capturing failed) the same step
runs operation by operation.

Rows beyond MOST_ROWS make another group: `packed_matmul` takes another way for those, and a
row's result must not depend on how many others are in its step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from subllm.engine.backend import KV_BLOCK
from subllm.engine.backends.cuda.kv import KvPool
from subllm.engine.backends.cuda.model import PackedModel, PagedRows, Rows
from subllm.kernels.products.triton_ops import greedy

log = logging.getLogger("subllm.engine")

MOST_ROWS = 8
_LEAST_WIDTH = 8  # blocks of a table: 512 tokens
_FIXED = 3  # columns of a request before its table: token, position, slot
_WARM_UP = 3  # runs before a capture, in which kernels are compiled and libraries set up


@dataclass(frozen=True)
class Row:
    """A token at a position of a sequence, which lies in `blocks`."""

    token: int
    position: int
    blocks: Sequence[int]


@dataclass(frozen=True)
class Found:
    """Of rows: logits float32 [rows, vocab], and the greedy choice int32 [rows], -1 for none."""

    logits: torch.Tensor
    choices: torch.Tensor


class _Static:
    """A step of one size: what goes in, and what comes out in the same place every time."""

    def __init__(
        self, run: Callable[[torch.Tensor], Found], rows: int, width: int, device: torch.device
    ) -> None:
        self._run = run
        self.requests = torch.empty((rows, _FIXED + width), dtype=torch.int32, device=device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._found: Found | None = None

    def capture(self, pool: Any) -> None:
        """In graph memory `pool`. Raises RuntimeError and others where that is not possible."""
        self.requests.copy_(torch.tensor([_nothing(self.requests.shape[1])]))
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                self._run(self.requests)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Another engine may be busy on another thread meanwhile.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            self._found = self._run(self.requests)
        self._graph = graph

    def __call__(self, requests: torch.Tensor) -> Found:
        """What is found is overwritten by the next call, where there is a graph."""
        self.requests.copy_(requests)
        if self._graph is None:
            return self._run(self.requests)
        self._graph.replay()
        assert self._found is not None
        return self._found


class SmallSteps:
    """Runs rows on one model and pool."""

    def __init__(self, model: PackedModel, pool: KvPool, device: torch.device) -> None:
        self._model, self._pool, self._device = model, pool, device
        self._steps: dict[tuple[int, int], _Static] = {}
        self._generation = pool.generation
        self.captures = device.type == "cuda"
        """Whether graphs are captured: not any more once that failed."""
        self._memory = torch.cuda.graph_pool_handle() if self.captures else None

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(rows, blocks of tables) that are ready."""
        return sorted(self._steps)

    def prepare(self, rows: int = 1, blocks: int = 1) -> None:
        """Has the step of that size ready."""
        self._static(_power(rows), max(_LEAST_WIDTH, _power(blocks)))

    def run(self, rows: Sequence[Row]) -> Found:
        """Every row's keys and values are stored before those that follow look at them: of one
        sequence, rows ascend."""
        groups = [rows[i : i + MOST_ROWS] for i in range(0, len(rows), MOST_ROWS)]
        width = max(_LEAST_WIDTH, _power(max(len(row.blocks) for row in rows)))
        sizes = [_power(len(group)) for group in groups]
        requests = [
            _request(group[i], width) if i < len(group) else _nothing(_FIXED + width)
            for group, size in zip(groups, sizes, strict=True)
            for i in range(size)
        ]
        sent = self._send(requests)
        found, start = [], 0
        for group, size in zip(groups, sizes, strict=True):
            part = self._static(size, width)(sent[start : start + size])
            start += size
            kept = Found(part.logits[: len(group)], part.choices[: len(group)])
            if len(groups) > 1:  # the next group may write there
                kept = Found(kept.logits.clone(), kept.choices.clone())
            found.append(kept)
        if len(found) == 1:
            return found[0]
        return Found(
            torch.cat([part.logits for part in found]), torch.cat([part.choices for part in found])
        )

    def _send(self, requests: list[list[int]]) -> torch.Tensor:
        """One copy, from memory that the device reads by itself."""
        here = torch.tensor(requests, dtype=torch.int32)
        if self._device.type != "cuda":
            return here
        return here.pin_memory().to(self._device, non_blocking=True)

    def _static(self, rows: int, width: int) -> _Static:
        if self._generation != self._pool.generation:  # graphs know where the pool was
            self._steps.clear()
            self._generation = self._pool.generation
        step = self._steps.get((rows, width))
        if step is None:
            step = _Static(self._run, rows, width, self._device)
            if self.captures:
                try:
                    step.capture(self._memory)
                except torch.OutOfMemoryError:
                    raise
                except Exception as error:
                    self.captures = False
                    reason = str(error).partition("\n")[0]
                    log.warning("steps are not captured, which is slower: %s", reason)
                    step = _Static(self._run, rows, width, self._device)
            self._steps[rows, width] = step
        return step

    def _run(self, requests: torch.Tensor) -> Found:
        token, position, slot = requests[:, :_FIXED].T.contiguous().long()
        lengths = torch.where(slot < 0, 0, position + 1).int()
        attention = PagedRows(self._model.spec, requests[:, _FIXED:], lengths)
        hidden = self._model.hidden(Rows(token, position, slot), self._pool, attention)
        logits = self._model.logits(hidden)
        return Found(logits, greedy(logits))


def _power(count: int) -> int:
    """The next power of two."""
    return 1 << (count - 1).bit_length()


def _request(row: Row, width: int) -> list[int]:
    block = row.blocks[row.position // KV_BLOCK]
    slot = block * KV_BLOCK + row.position % KV_BLOCK
    return [row.token, row.position, slot, *row.blocks, *[0] * (width - len(row.blocks))]


def _nothing(columns: int) -> list[int]:
    """A row that fills up a group: nothing is stored, nothing is looked at."""
    return [0, 0, -1, *[0] * (columns - _FIXED)]
