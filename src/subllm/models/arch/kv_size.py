"""How much memory keys and values take, before anything is loaded."""

from __future__ import annotations

from subllm.models.arch.spec import ArchSpec

BLOCK = 64
"""Tokens by which KV memory grows."""

_ALIGNED = 64  # bytes, each plane of a block
_LANES = 16  # elements to which a value's row is filled up, and which share a key's scale


def kv_bytes(spec: ArchSpec, tokens: int, kv_type: str = "bfloat16") -> int:
    """Bytes of the blocks that hold so many tokens, as the native backend lays them out; others
    take about as much. kv_type: "bfloat16", "int8" or "float32"."""
    size = {"bfloat16": 2, "int8": 1, "float32": 4}[kv_type]
    groups = _up(spec.head_dim, _LANES)
    keys, values = spec.head_dim * BLOCK * size, groups * _LANES * BLOCK * size
    head = _ALIGNED * (_up(keys, _ALIGNED) + _up(values, _ALIGNED))
    if kv_type == "int8":
        head += (groups + 1) * BLOCK * 4  # float32 scales: a group's of keys, a token's of values
    return _up(tokens, BLOCK) * spec.num_layers * spec.num_kv_heads * head


def _up(count: int, size: int) -> int:
    return -(-count // size)
