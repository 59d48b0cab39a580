"""One way of a model through all of its blocks, and what held-out text says of it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from subllm.kernels.sparsity.layout import Values
from subllm.kernels.sparsity.packed_file import PackedReader, PackedWriter
from subllm.kernels.sparsity.packing import unpack_rows
from subllm.making.extraction.blocks.open import open_blocks
from subllm.making.extraction.blocks.protocol import Blocks, Floats
from subllm.making.extraction.blockwise import BlockRecipe, BlockwiseExtraction, OnBlock
from subllm.making.extraction.checkpoint import Checkpoint
from subllm.making.extraction.heldout import HeldoutStream, compare
from subllm.making.extraction.quantiser import needs_of
from subllm.making.extraction.steps import Given
from subllm.making.pruning.allocation import Allocation
from subllm.models.store.manifest import Perplexity
from subllm.models.weights.reader import WeightReader
from subllm.progress import Progress

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
                on_block,
            )  # fmt: skip
            files = loop.run(self.progress)
            del calibration
            perplexity = self._perplexity(blocks, streams, shared, recipe.vectors)
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
        self,
        blocks: Blocks,
        streams: list[HeldoutStream],
        shared: PackedReader,
        vectors: Mapping[str, Floats],
    ) -> dict[str, Perplexity]:
        """Of every held-out stream; the packed side uses the packed head."""
        if not streams:
            return {}
        head = shared.tensor(blocks.spec.head_name)
        result = {}
        self.progress.start("perplexity", "measuring the loss", len(streams), "items")
        for stream in streams:
            result[stream.domain] = compare(blocks, stream, head, vectors)
            self.progress.advance("perplexity")
        self.progress.finish("perplexity")
        return result


def pack_given(
    passes: ModelPass,
    given: Given,
    allocation: Allocation,
    values: Values,
    tokens: Tokens | None,
    heldout: Mapping[str, Tokens],
    directory: Path,
) -> PassResult:
    """Pack weights that are there already, with scales and codes fitted to them, and measure
    what they are before and after. tokens: calibration, used where values are fitted to it.
    `directory` is made anew: what lies there may be of other weights. The last of the files is
    that of vectors that learned, where any did."""
    shutil.rmtree(directory, ignore_errors=True)
    fitted = tokens if needs_of(values) else None
    vectors = given.vectors()
    recipe = BlockRecipe([given], allocation, values, vectors, title="packing")
    result = passes.run(recipe, fitted, heldout, directory, masked=True)
    if vectors:
        path = directory / "vectors.packed"
        with PackedWriter(path) as writer:
            for name, vector in vectors.items():
                writer.add_vector(name, vector)
        result.files.append(path)
    return result
