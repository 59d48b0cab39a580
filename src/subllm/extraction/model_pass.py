"""One way of a model through all of its blocks, and what held-out text says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from subllm.extraction.blocks.open import open_blocks
from subllm.extraction.blocks.protocol import Blocks
from subllm.extraction.blockwise import BlockRecipe, BlockwiseExtraction, OnBlock
from subllm.extraction.checkpoint import Checkpoint
from subllm.extraction.heldout import HeldoutStream, compare
from subllm.progress import Progress
from subllm.sparsity.packed_file import PackedReader
from subllm.sparsity.packing import unpack_rows
from subllm.store.manifest import Perplexity
from subllm.weights.reader import WeightReader

Tokens = npt.NDArray[np.int32]


@dataclass(frozen=True)
class PassResult:
    """files: the packed blocks in order; perplexity by domain; the block resumed at."""

    files: list[Path]
    perplexity: dict[str, Perplexity]
    resumed_at: int


@dataclass(frozen=True)
class ModelPass:
    """Passes of one base: blocks run on `device` as `compute` says (`open_blocks`), `batch`
    sequences at a time; `shared` is the packed embedding and head."""

    reader: WeightReader
    device: torch.device
    compute: str
    shared: Path
    batch: int
    progress: Progress

    def run(
        self,
        recipe: BlockRecipe,
        tokens: Tokens | None,
        heldout: Mapping[str, Tokens],
        directory: Path,
        *,
        title: str = "pruning",
        masked: bool = False,
        on_block: OnBlock | None = None,
    ) -> PassResult:
        """tokens: calibration, int32 [samples, length], None where nothing is collected;
        directory: of the packed blocks and the resumable state; masked: measure also what
        the weights are before they are packed."""
        with PackedReader(self.shared) as shared:
            blocks = open_blocks(self.reader, self.device, self.compute)
            calibration = None if tokens is None else blocks.embed(tokens, self.batch)
            streams = [
                self._stream(blocks, shared, domain, held, masked)
                for domain, held in heldout.items()
            ]
            self.reader.release()
            loop = BlockwiseExtraction(
                blocks, recipe, calibration, streams, self.batch, Checkpoint(directory),
                on_block, title,
            )  # fmt: skip
            files = loop.run(self.progress)
            del calibration
            perplexity = self._perplexity(blocks, streams, shared)
        return PassResult(files, perplexity, loop.resumed_at)

    def _stream(
        self, blocks: Blocks, shared: PackedReader, domain: str, tokens: Tokens, masked: bool
    ) -> HeldoutStream:
        """Held-out states before the first block; the packed side has the packed embedding."""
        embedding = shared.tensor(blocks.spec.embedding_name)
        dense = blocks.embed(tokens, self.batch)
        return HeldoutStream(
            domain,
            tokens,
            dense,
            blocks.embed(tokens, self.batch, partial(unpack_rows, embedding)),
            dense.clone() if masked else None,
        )

    def _perplexity(
        self, blocks: Blocks, streams: list[HeldoutStream], shared: PackedReader
    ) -> dict[str, Perplexity]:
        """Of every held-out stream; the packed side uses the packed head."""
        if not streams:
            return {}
        head = shared.tensor(blocks.spec.head_name)
        result = {}
        self.progress.start("perplexity", "measuring the loss", len(streams), "items")
        for stream in streams:
            result[stream.domain] = compare(blocks, stream, head)
            self.progress.advance("perplexity")
        self.progress.finish("perplexity")
        return result
