"""Rotary position embedding: angles once per step, applied to q and k together."""

from __future__ import annotations

import math

import torch

from subllm.models.arch.spec import ArchSpec, RopeScaling


def _scaled(frequencies: torch.Tensor, scaling: RopeScaling) -> torch.Tensor:
    if scaling.kind == "linear":
        return frequencies / scaling.factor
    # llama3: long wavelengths are divided, short ones kept, those between blended.
    wavelengths = 2 * math.pi / frequencies
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    blend = (scaling.original_context / wavelengths - low) / (high - low)
    blend = blend.clamp(0.0, 1.0)
    return frequencies * (blend + (1 - blend) / scaling.factor)


class Rope:
    """Frequencies of the global and of the sliding layers, float32 [head_dim / 2]."""

    def __init__(self, spec: ArchSpec, device: torch.device) -> None:
        exponents = torch.arange(0, spec.head_dim, 2, dtype=torch.float32) / spec.head_dim
        base = 1.0 / (spec.rope_theta**exponents)
        scaled = _scaled(base, spec.rope_scaling) if spec.rope_scaling else base
        self._global = scaled.to(device)
        # A base of their own also means that the sliding layers are not scaled.
        local = scaled if spec.local_rope_theta is None else spec.local_rope_theta**-exponents
        self._local = None if local is scaled else local.to(device)

    def angles(self, positions: torch.Tensor) -> tuple[Rotation, Rotation]:
        """Rotations for the (global, sliding) layers at positions int64 [count]."""
        whole = Rotation.of(positions, self._global)
        return whole, whole if self._local is None else Rotation.of(positions, self._local)


class Rotation:
    """cos and sin, float32 [count, 1, head_dim / 2]."""

    def __init__(self, cos: torch.Tensor, sin: torch.Tensor) -> None:
        self.cos, self.sin = cos, sin

    @classmethod
    def of(cls, positions: torch.Tensor, frequencies: torch.Tensor) -> Rotation:
        angles = positions.to(torch.float32)[:, None, None] * frequencies
        return cls(angles.cos(), angles.sin())

    def apply_(self, heads: torch.Tensor) -> None:
        """Rotates [count, heads, head_dim] in place, half against half."""
        first, second = heads.float().chunk(2, dim=-1)
        rotated = (first * self.cos - second * self.sin, second * self.cos + first * self.sin)
        heads.copy_(torch.cat(rotated, dim=-1))
