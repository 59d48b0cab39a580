"""The memory of keys and values as it is told, beside what the native backend takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from oracles.packed_models import PackedMemory
from oracles.smallest_model import SHAPE
from oracles.tiny_models import MemorySource

from subllm.engine.backends.native import KvType, NativeBackend
from subllm.models.arch.kv_size import kv_bytes
from subllm.models.arch.registry import spec_from_config
from subllm.models.arch.tensors import tensor_shapes


@pytest.mark.parametrize("kv", ["bfloat16", "int8", "float32"])
@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4},
        {"hidden_size": 40, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 20},
    ],
)
def test_it_is_what_the_backend_takes(kv: KvType, shape: dict[str, Any]) -> None:
    spec = spec_from_config({**SHAPE, **shape})
    ones = {name: np.ones(size, np.float32) for name, size in tensor_shapes(spec).items()}
    backend = NativeBackend(PackedMemory(MemorySource(spec, ones)), threads=1, kv=kv)
    token = backend.kv_bytes_per_token
    assert kv_bytes(spec, 64, kv) == 64 * token
    assert kv_bytes(spec, 65, kv) == kv_bytes(spec, 128, kv) == 128 * token


def test_of_a_real_shape() -> None:
    shape = {
        **SHAPE,
        "num_hidden_layers": 24,
        "hidden_size": 896,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
    }
    assert kv_bytes(spec_from_config(shape), 8192) == 8192 * 24 * 2 * 64 * 2 * 2
