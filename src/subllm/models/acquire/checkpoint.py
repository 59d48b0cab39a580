"""Which files of a checkpoint subllm takes: never a pickle, never code."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from subllm.errors import AcquireError, WeightsError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
CONFIG = "config.json"
LICENCES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENSE-MODEL")
LICENCE_BYTES = 200_000  # longer ones are no licences
TOKENIZER = "tokenizer.json"
_BESIDE_TOKENIZER = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
)
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack", ".h5")


def side_files(names: Collection[str], where: str) -> list[str]:
    """Config and tokenizer files among `names`. AcquireError without the needed ones."""
    if CONFIG not in names:
        raise AcquireError(f"{where} has no {CONFIG}; give one with a Hugging Face checkpoint")
    if TOKENIZER not in names:
        raise AcquireError(
            f"{where} has no {TOKENIZER}; give one that was saved with a fast tokenizer"
        )
    return [name for name in (CONFIG, TOKENIZER, *_BESIDE_TOKENIZER) if name in names]


def weight_files(names: Collection[str], index: bytes | None, where: str) -> list[str]:
    """The safetensors files of a checkpoint, in order; `index` is the content of INDEX.

    Raises AcquireError when there are none, when only pickles are there, or when the
    index names files that are not there.
    """
    if index is not None:
        wanted = _indexed(index, where)
        for name in wanted:
            if name not in names:
                raise AcquireError(f"{where}: {INDEX} names {name!r}, which is not there")
        return wanted
    if SINGLE in names:
        return [SINGLE]
    found = sorted(name for name in names if name.endswith(".safetensors"))
    if len(found) == 1:
        return found
    if found:
        raise AcquireError(f"{where} has {len(found)} safetensors files and no {INDEX}")
    if any(name.endswith(_PICKLES) for name in names):
        raise AcquireError(
            f"{where} has its weights as pickles only, which can run code and are not loaded; "
            "convert them to safetensors"
        )
    if any(name.endswith(".gguf") for name in names):
        raise AcquireError(f"{where} has GGUF files only; download one and give its path")
    raise AcquireError(f"{where} has no safetensors weights; give another")


def _indexed(index: bytes, where: str) -> list[str]:
    try:
        weight_map = json.loads(index)["weight_map"]
        names = sorted(set(weight_map.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AcquireError(f"{where}: {INDEX} is malformed; fetch it again") from error
    for name in names:
        if not name.endswith(".safetensors") or "/" in name or "\\" in name:
            raise AcquireError(f"{where}: {INDEX} names {name!r}, which is no weights file")
    return names


def parse_config(data: bytes, where: str) -> Mapping[str, Any]:
    """`config.json`; WeightsError unless it describes a supported architecture."""
    from subllm.models.arch.registry import spec_from_config

    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{where}: {CONFIG} is not JSON; fetch it again") from error
    if not isinstance(config, dict):
        raise WeightsError(f"{where}: {CONFIG} is not an object; fetch it again")
    spec_from_config(config)
    return config
