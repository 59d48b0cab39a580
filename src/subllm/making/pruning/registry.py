"""Pruning methods by the name that a recipe has."""

from __future__ import annotations

from collections.abc import Mapping

from subllm.errors import UnknownNameError
from subllm.making.pruning.dpruner import DPruner
from subllm.making.pruning.magnitude import Magnitude
from subllm.making.pruning.maskllm import MaskLlm
from subllm.making.pruning.method import Method, MethodClass
from subllm.making.pruning.parameter import Number, parse_all
from subllm.making.pruning.ria import Ria
from subllm.making.pruning.sparsegpt import SparseGpt
from subllm.making.pruning.wanda import Wanda

_METHODS: dict[str, MethodClass] = {
    "wanda": Wanda,
    "ria": Ria,
    "sparsegpt": SparseGpt,
    "dpruner": DPruner,
    "maskllm": MaskLlm,
    "magnitude": Magnitude,
}


def method_names() -> tuple[str, ...]:
    return tuple(_METHODS)


def get_method(name: str, params: Mapping[str, str | Number] | None = None) -> Method:
    """params: values by name, as text or numbers; a parameter that is left out has its
    default. Raises UnknownNameError for a method or a parameter that does not exist,
    UsageError for a value out of range."""
    if name not in _METHODS:
        raise UnknownNameError("method", name, _METHODS, f"methods: {', '.join(_METHODS)}")
    made = _METHODS[name]
    return made(**parse_all(name, made.parameters, params or {}))
