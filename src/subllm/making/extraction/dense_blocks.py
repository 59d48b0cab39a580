"""The blocks of a dense model: packed one matrix at a time, or with calibration.

int4 rounds better where it knows its inputs: what the base does not hold in int4 codes
already is then packed by the loop that extraction has, with nothing pruned.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from subllm.kernels.sparsity.int4 import pack_int4
from subllm.kernels.sparsity.layout import Values
from subllm.kernels.sparsity.packed_file import PackedWriter
from subllm.kernels.sparsity.packing import PackedTensor, pack
from subllm.making.calibration.load import TextOrigin, load_calibration
from subllm.making.calibration.packs import pack_names
from subllm.making.calibration.render import Renderer
from subllm.making.calibration.source import CalibrationData
from subllm.making.extraction.blocks.open import open_blocks
from subllm.making.extraction.blockwise import BlockRecipe, BlockwiseExtraction
from subllm.making.extraction.checkpoint import Checkpoint
from subllm.making.extraction.compute import choose, computes
from subllm.making.extraction.device import choose_device
from subllm.making.extraction.estimate import Rates
from subllm.making.extraction.plan import ExtractionPlan, calibration_record, started
from subllm.making.extraction.quantiser import needs_of, stored_as
from subllm.making.extraction.shared import DENSE
from subllm.making.extraction.steps import KeepAll
from subllm.models.arch.spec import LinearSpec
from subllm.models.catalog.prompt import PromptSpec
from subllm.models.store.store import Store
from subllm.models.text.tokenizer import Tokenizer
from subllm.models.weights.reader import WeightReader
from subllm.progress import Progress

# Of the weights. The 1.5B's Q4_K_M leaves 17 % of them (Q6_K): without calibration they cost 0.3 %
# of perplexity, and it would take as long for them as for all.
_LEAST_LEFT = 0.25
_LENGTH = 512
_BATCH = 2


def mostly_coded(reader: WeightReader) -> bool:
    """Whether the base holds in int4 codes nearly all that is to be stored in int4, so that
    calibration has little to do."""
    spec = reader.spec
    left = total = 0
    for layer in range(spec.num_layers):
        for linear in spec.linears:
            if stored_as(linear, "int4") == "int4":
                weights = linear.out_features * linear.in_features
                total += weights
                if not reader.holds_int4(f"{spec.block_prefix(layer)}{linear.name}.weight"):
                    left += weights
    return left < _LEAST_LEFT * total


def write_plain(reader: WeightReader, values: Values, path: Path, progress: Progress) -> Path:
    """Every block packed into `path` by its weights alone."""
    spec = reader.spec
    progress.start("blocks", "packing", spec.num_layers, "blocks")
    writer = PackedWriter(path)
    for layer in range(spec.num_layers):
        for linear in spec.linears:
            name = f"{spec.block_prefix(layer)}{linear.name}.weight"
            writer.add_packed(name, _pack(reader, name, linear, values))
        reader.release()
        progress.advance("blocks")
    writer.close()
    progress.finish("blocks")
    return path


def _pack(reader: WeightReader, name: str, linear: LinearSpec, values: Values) -> PackedTensor:
    """int4 codes that the base has already are kept as they are, whatever matrix it is."""
    rows = reader.int4(name) if values == "int4" else None
    if rows is not None:
        return pack_int4(rows, None, DENSE)
    return pack(reader.read(name), None, DENSE, stored_as(linear, values))


@dataclass(frozen=True)
class Calibrated:
    """A dense model that is rounded by calibration, planned."""

    plan: ExtractionPlan
    data: CalibrationData
    reader: WeightReader
    device: torch.device

    def write(self, workspace: Path, progress: Progress) -> list[Path]:
        """The packed files of its blocks, in order; goes on where an earlier run stopped."""
        plan = self.plan
        blocks = open_blocks(self.reader, self.device, plan.compute)
        loop = BlockwiseExtraction(
            blocks,
            BlockRecipe([KeepAll()], plan.allocation, plan.values, title="packing"),
            blocks.embed(self.data.tokens, _BATCH),
            [],
            _BATCH,
            Checkpoint(workspace),
        )
        return loop.run(progress)


def calibrated(
    store: Store,
    plan: ExtractionPlan,
    reader: WeightReader,
    tokenizer: Tokenizer,
    prompt: PromptSpec,
    samples: int,
) -> Calibrated:
    """`plan` with calibration by `samples` sequences of all packs alike, on the products that
    are fastest here. Raises CalibrationError."""
    data = load_calibration(
        ",".join(f"pack:{name}=1" for name in pack_names()),
        TextOrigin(plan.language),
        Renderer(tokenizer, prompt),
        samples=samples,
        seq_len=min(_LENGTH, reader.spec.context_length),
        seed=0,
    )
    device = choose_device("auto")

    def plan_of(_samples: int, compute: str) -> ExtractionPlan:
        return replace(
            plan, calibration=calibration_record(data), compute=compute, device=device.type
        )

    chosen = choose(
        plan_of,
        (samples,),
        computes("auto", device, needs_of(plan.values), fast=False),
        partial(started, store),
        Rates(reader.spec, device),
        lambda _samples, _compute: 0.0,
    )
    return Calibrated(chosen.plan, data, reader, device)
