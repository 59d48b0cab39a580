"""A measured sensitivity, as it lies in the store's cache."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

from subllm.making.extraction.sensitivity.divergence import Divergence
from subllm.models.arch.spec import ArchSpec

ROLES = (("q", "k"), ("v",), ("o",), ("gate", "up"), ("down",))
"""Roles that are pruned together: what they compute belongs together."""


@dataclass(frozen=True, order=True)
class Group:
    """Matrices of one layer that are pruned together."""

    layer: int
    roles: tuple[str, ...]


def groups_of(spec: ArchSpec) -> list[Group]:
    """In execution order; roles that the architecture lacks are left out."""
    have = {linear.role for linear in spec.linears}
    roles = [tuple(role for role in group if role in have) for group in ROLES]
    return [Group(layer, group) for layer in range(spec.num_layers) for group in roles]


def names_of(spec: ArchSpec, group: Group) -> dict[str, tuple[int, int]]:
    """Full names and shapes of a group's matrices."""
    return {
        f"{spec.block_prefix(group.layer)}{linear.name}.weight": (
            linear.out_features,
            linear.in_features,
        )
        for linear in spec.linears
        if linear.role in group.roles
    }


@dataclass(frozen=True)
class Sensitivity:
    """alone   by group and pattern: the divergence with only that group pruned
    whole   by pattern: with every matrix pruned
    """

    alone: Mapping[Group, Mapping[str, Divergence]]
    whole: Mapping[str, Divergence]

    def summed(self, pattern: str) -> float:
        """What the KLs of all groups at a pattern add up to."""
        return sum(of[pattern].kl for of in self.alone.values())


_Figures = dict[str, tuple[float, float]]


class _Row(pydantic.BaseModel):
    layer: int
    roles: tuple[str, ...]
    figures: _Figures


class _File(pydantic.BaseModel):
    key: dict[str, Any]
    whole: _Figures
    rows: list[_Row]


def to_json(key: Mapping[str, Any], measured: Sensitivity) -> bytes:
    """key: what the measurement depends on."""
    file = _File(
        key=dict(key),
        whole=_figures(measured.whole),
        rows=[
            _Row(layer=group.layer, roles=group.roles, figures=_figures(of))
            for group, of in measured.alone.items()
        ],
    )
    return json.dumps(file.model_dump(), indent=1).encode()


def from_json(data: bytes, key: Mapping[str, Any]) -> Sensitivity | None:
    """None for what is damaged or was measured otherwise: it is measured again."""
    try:
        file = _File.model_validate_json(data)
    except pydantic.ValidationError:
        return None
    if file.key != json.loads(json.dumps(key)):
        return None
    return Sensitivity(
        {Group(row.layer, row.roles): _divergences(row.figures) for row in file.rows},
        _divergences(file.whole),
    )


def read(path: Path, key: Mapping[str, Any]) -> Sensitivity | None:
    """`from_json` of a file, None where there is none."""
    try:
        return from_json(path.read_bytes(), key)
    except OSError:
        return None


def _figures(of: Mapping[str, Divergence]) -> _Figures:
    return {pattern: (found.kl, found.agreement) for pattern, found in of.items()}


def _divergences(figures: _Figures) -> dict[str, Divergence]:
    return {pattern: Divergence(*found) for pattern, found in figures.items()}
