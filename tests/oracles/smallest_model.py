"""The smallest model that runs, where keys and values matter and words do not."""

from __future__ import annotations

import numpy as np

from oracles.backends import Loadable
from oracles.packed_models import PackedMemory
from oracles.tiny_models import MemorySource
from subllm.engine.backend import TokenArray
from subllm.engine.backends.native import NativeBackend
from subllm.models.arch.registry import spec_from_config
from subllm.models.arch.tensors import tensor_shapes

SHAPE = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
}


def tiny_source() -> Loadable:
    spec = spec_from_config(SHAPE)
    rng = np.random.default_rng(0)
    tensors = {
        name: rng.normal(0, 0.1, shape).astype(np.float32)
        for name, shape in tensor_shapes(spec).items()
    }
    return Loadable(PackedMemory(MemorySource(spec, tensors)))


def tiny_backend() -> NativeBackend:
    return NativeBackend(tiny_source(), threads=1)


def texts() -> list[TokenArray]:
    """Some begin alike, for a block and more, and for less than one."""
    rng = np.random.default_rng(1)
    one, two, three = (rng.integers(0, 64, 400).astype(np.int32) for _ in range(3))
    return [
        one,
        np.concatenate([one[:150], two[:250]]),
        np.concatenate([one[:40], three[:360]]),
        two,
    ]


TEXTS = texts()
