"""Typed access to a Hugging Face `config.json`, whose values nobody has checked yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from subllm.errors import WeightsError
from subllm.models.arch.spec import Activation, RopeScaling

MAX_SIZE = 2**31  # no dimension of a real model comes near
MAX_LAYERS = 1024  # each costs memory before anything is read
DEFAULT_THETA = 10000.0

_ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}


class Config:
    """A config mapping; every getter raises WeightsError for a value that cannot be."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def get(self, key: str) -> Any:
        return self._values.get(key)

    def size(self, key: str, default: int | None = None, minimum: int = 1) -> int:
        """An integer of at least `minimum`; null counts as absent."""
        value = self._values.get(key)
        if value is None:
            value = default
        if value is None:
            raise WeightsError(f"the model's config has no {key!r}; fetch it again")
        valid = isinstance(value, int) and not isinstance(value, bool)
        if not valid or not minimum <= value < MAX_SIZE:
            raise WeightsError(f"{key} = {value!r} in the model's config is not a valid size")
        return value

    def layers(self, default: int | None = None) -> int:
        """Blocks of the model."""
        layers = self.size("num_hidden_layers", default)
        if layers > MAX_LAYERS:
            raise WeightsError(f"{layers} layers in the model's config are more than {MAX_LAYERS}")
        return layers

    def optional_size(self, key: str, absent: int | None = None) -> int | None:
        """An integer from 1 up; None for null, `absent` where the key is not there."""
        if key not in self._values:
            return absent
        return None if self._values[key] is None else self.size(key)

    def number(self, key: str, default: float) -> float:
        """A positive finite number."""
        return positive(key, self._values.get(key), default)

    def optional_number(self, key: str) -> float | None:
        return None if self._values.get(key) is None else self.number(key, 0.0)

    def flag(self, key: str, default: bool) -> bool:
        value = self._values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise WeightsError(f"{key} = {value!r} in the model's config is not true or false")
        return value

    def activation(self, key: str, default: str) -> Activation:
        name = self._values.get(key) or default
        if not isinstance(name, str) or name not in _ACTIVATIONS:
            raise WeightsError(
                f"activation {name!r} is not supported; known are {', '.join(_ACTIVATIONS)}"
            )
        return _ACTIVATIONS[name]

    def sliding_layers(self, num_layers: int) -> tuple[bool, ...] | None:
        """From `layer_types`, or None where the config does not list them."""
        kinds = self._values.get("layer_types")
        if kinds is None:
            return None
        if not isinstance(kinds, list) or len(kinds) != num_layers:
            raise WeightsError("layer_types in the model's config does not list every layer")
        for kind in kinds:
            if kind not in ("full_attention", "sliding_attention"):
                raise WeightsError(f"attention of type {kind!r} is not supported")
        return tuple(kind == "sliding_attention" for kind in kinds)

    def rope(self, default_theta: float = DEFAULT_THETA) -> tuple[float, RopeScaling | None]:
        """Rotary base and scaling, from `rope_parameters` or the older `rope_theta` and
        `rope_scaling`."""
        theta = self.number("rope_theta", default_theta)
        refuse_partial_rotary(self._values)
        for key in ("rope_scaling", "rope_parameters"):
            values = self._values.get(key)
            if values:
                return rope_from(values, theta, self.size("max_position_embeddings", 8192))
        return theta, None


def positive(key: str, value: Any, default: float) -> float:
    """`value`, or `default` for None; raises WeightsError unless positive and finite."""
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
        raise WeightsError(f"{key} = {value!r} in the model's config is not a positive number")
    return float(value)


def refuse_partial_rotary(values: Mapping[str, Any]) -> None:
    if positive("partial_rotary_factor", values.get("partial_rotary_factor"), 1.0) != 1.0:
        raise WeightsError("rotary embeddings on part of a head are not supported")


def rope_from(values: Any, theta: float, context: int) -> tuple[float, RopeScaling | None]:
    """Rotary base and scaling from one parameter mapping.

    theta    the base where the mapping names none
    context  the model's context, the original one of llama3 scaling where unnamed
    """
    if not isinstance(values, Mapping):
        raise WeightsError(f"rope parameters {values!r} in the model's config are not a mapping")
    theta = positive("rope_theta", values.get("rope_theta"), theta)
    refuse_partial_rotary(values)
    kind = values.get("rope_type", values.get("type", "default"))
    factor = positive("factor", values.get("factor"), 1.0)
    if kind == "default":
        return theta, None
    if kind == "linear":
        return theta, RopeScaling("linear", factor)
    if kind == "llama3":
        original = positive(
            "original_max_position_embeddings",
            values.get("original_max_position_embeddings"),
            context,
        )
        return theta, RopeScaling(
            "llama3",
            factor,
            positive("low_freq_factor", values.get("low_freq_factor"), 1.0),
            positive("high_freq_factor", values.get("high_freq_factor"), 4.0),
            int(original),
        )
    raise WeightsError(f"rope scaling of type {kind!r} is not supported; known are linear, llama3")
