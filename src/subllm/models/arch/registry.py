"""From a Hugging Face config to an `ArchSpec`, by `model_type`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from subllm.errors import WeightsError
from subllm.models.arch import gemma, gemma3, llama, mistral, qwen2, starcoder2
from subllm.models.arch.config import Config
from subllm.models.arch.spec import ArchSpec

FAMILIES: dict[str, Callable[[Config], ArchSpec]] = {
    "llama": llama.spec,
    "mistral": mistral.spec,
    "qwen2": qwen2.spec,
    "gemma": gemma.spec,
    "gemma3_text": gemma3.spec,
    "starcoder2": starcoder2.spec,
}


def causal_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the text model alone: a multimodal Gemma 3 keeps it in `text_config`."""
    if config.get("model_type") != "gemma3":
        return dict(config)
    text = config.get("text_config")
    if not isinstance(text, Mapping):
        raise WeightsError("a gemma3 config without text_config; fetch the model again")
    tokens = {k: config[k] for k in ("bos_token_id", "eos_token_id") if k in config}
    return {**tokens, **text, "model_type": "gemma3_text"}


def spec_from_config(config: Mapping[str, Any]) -> ArchSpec:
    """The architecture that a `config.json` describes.

    Raises WeightsError for a model type that is not supported, or a config that is
    incomplete or contradicts itself.
    """
    values = causal_config(config)
    kind = values.get("model_type")
    family = FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        raise WeightsError(
            f"model type {kind!r} is not supported; supported are {', '.join(FAMILIES)}"
        )
    return family(Config(values))
