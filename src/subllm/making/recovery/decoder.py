"""A transformers decoder on empty weights, whose blocks are filled and run one by one.

The model's own forward runs with recorders in place of its blocks: that yields the first
block's inputs and what every block is called with (attention masks, rotary tables, whatever a
release adds), so no architecture is written down here. Extraction's blocks and recovery's
student and teacher are both made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from subllm.errors import ExtractionError
from subllm.models.weights.reader import WeightReader

Read = Callable[[str], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Call:
    """What a block is called with beside hidden states."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Recorder(nn.Module):
    """Stands in for a block: notes what it is called with, passes hidden states on."""

    def __init__(self, block: nn.Module, calls: list[Call]) -> None:
        super().__init__()
        # Not a submodule: attributes of the block stay readable, its weights untouched.
        self.__dict__["_block"] = block
        self.__dict__["_calls"] = calls

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_block"], name)

    def forward(self, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        self.__dict__["_calls"].append(Call(args, kwargs))
        return hidden


def empty_decoder(reader: WeightReader, device: torch.device, dtype: torch.dtype) -> Any:
    """The decoder of the reader's model, its parameters on the meta device, its buffers real.
    Raises ExtractionError where transformers does not know the architecture, or builds another
    number of blocks."""
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.for_model(**reader.config)
        with init_empty_weights(include_buffers=False):
            model = AutoModelForCausalLM.from_config(
                config, dtype=dtype, attn_implementation="sdpa"
            )
    except (ValueError, KeyError, TypeError) as error:
        raise ExtractionError(
            f"transformers cannot build this architecture: {error}; "
            "update transformers or choose another base"
        ) from error
    model.eval().requires_grad_(False)  # eval: no dropout
    decoder = model.get_decoder()
    if len(decoder.layers) != reader.spec.num_layers:
        raise ExtractionError(
            f"transformers builds {len(decoder.layers)} blocks, the weights hold "
            f"{reader.spec.num_layers}; the model's config is inconsistent"
        )
    for module in decoder.modules():
        for name, buffer in module.named_buffers(recurse=False):
            module.register_buffer(name, buffer.to(device), persistent=False)
    return decoder


def load(module: nn.Module, read: Read, device: torch.device, dtype: torch.dtype) -> None:
    """Fill a module's parameters by their names in it; none of them learns."""
    state = {
        name: torch.from_numpy(read(name)).to(device, dtype)
        for name, _ in module.named_parameters()
    }
    module.load_state_dict(state, strict=False, assign=True)
    module.requires_grad_(False)


def replace_vectors(
    module: nn.Module, prefix: str, vectors: Mapping[str, npt.NDArray[np.float32]]
) -> None:
    """Of a module that is loaded, the parameters whose names after `prefix` are among `vectors`."""
    for name, parameter in module.named_parameters():
        if prefix + name in vectors:
            parameter.data.copy_(torch.from_numpy(vectors[prefix + name].copy()))


def load_final_norm(
    norm: nn.Module, reader: WeightReader, device: torch.device, dtype: torch.dtype
) -> None:
    """Fill the decoder's last norm."""
    stem = reader.spec.final_norm_name.removesuffix("weight")
    load(norm, lambda name: reader.read(stem + name), device, dtype)
