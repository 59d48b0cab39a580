"""Pruning methods by the name that `--method` takes."""

from __future__ import annotations

from collections.abc import Callable

from subllm.errors import UnknownNameError
from subllm.pruning.magnitude import Magnitude
from subllm.pruning.method import Method
from subllm.pruning.wanda import Wanda

_METHODS: dict[str, Callable[[], Method]] = {"wanda": Wanda, "magnitude": Magnitude}


def method_names() -> tuple[str, ...]:
    return tuple(_METHODS)


def get_method(name: str) -> Method:
    """Raises UnknownNameError with the nearest names."""
    if name not in _METHODS:
        raise UnknownNameError("method", name, _METHODS, f"methods: {', '.join(_METHODS)}")
    return _METHODS[name]()
