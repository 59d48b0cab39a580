"""The implementation of `Blocks` that a plan's `compute` names."""

from __future__ import annotations

import torch

from subllm.making.extraction.blocks.native_blocks import NativeBlocks
from subllm.making.extraction.blocks.protocol import Blocks
from subllm.making.extraction.blocks.torch_blocks import TorchBlocks
from subllm.making.recovery.compute import DTYPES
from subllm.models.weights.reader import WeightReader

INT8 = "int8"


def open_blocks(reader: WeightReader, device: torch.device, compute: str) -> Blocks:
    """compute: INT8 for the native engine, on the CPU; else a name in DTYPES. Raises
    ExtractionError and BackendError where that cannot run the architecture."""
    if compute == INT8:
        return NativeBlocks(reader, torch.get_num_threads())
    return TorchBlocks(reader, device, DTYPES[compute])
