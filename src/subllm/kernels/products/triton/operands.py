"""What operations of `triton_ops` take together; tensors are on one device."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class KvPlanes:
    """Keys and values of a layer, [blocks, block_size, kv_heads, dim] each, any float type."""

    keys: torch.Tensor
    values: torch.Tensor


@dataclass(frozen=True)
class Rotation:
    """cos, sin  float32 [positions, dim / 2]; half against half, as `Rope` has it
    qk_norm   float32 [heads + kv_heads, dim]: RMSNorm of each head before its rotation
    """

    cos: torch.Tensor
    sin: torch.Tensor
    qk_norm: torch.Tensor | None = None
    eps: float = 1e-6


@dataclass(frozen=True)
class SeenKeys:
    """tables   int32 [rows, max_blocks]: the blocks of a row's sequence, in order; behind its
             length any block, or -1
    lengths  int32 [rows]: keys that the row sees, from position 0 on, its own included. Draws of
             one chunk are rows with the same table and ascending lengths. 0: zeros come out
    """

    tables: torch.Tensor
    lengths: torch.Tensor


@dataclass(frozen=True)
class Scores:
    """How queries weigh keys.

    window   only the last so many of them
    softcap  scores become softcap * tanh(score / softcap)
    """

    scale: float
    window: int | None = None
    softcap: float | None = None


@dataclass(frozen=True)
class Bias:
    """ids: integers [rows, n], distinct in a row, -1: none. values: float32 [rows, n]."""

    ids: torch.Tensor
    values: torch.Tensor


@dataclass(frozen=True)
class Penalties:
    """history     integers [rows, room], `lengths` [rows] of them, of which `prompt_lengths`
                [rows] are the prompt
    repetition  float32 [rows], 1: none
    presence, frequency  float32 [rows], 0: none
    """

    history: torch.Tensor
    lengths: torch.Tensor
    prompt_lengths: torch.Tensor
    repetition: torch.Tensor
    presence: torch.Tensor
    frequency: torch.Tensor
