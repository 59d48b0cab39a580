"""A name for a base that was given without one: what its files call themselves, else its path.

Qwen2.5-Coder-0.5B-Instruct      qwen2.5-coder:0.5b
~/models/my_coder (1.5 billion)  my-coder:1.5b
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any

from subllm.models.arch.registry import spec_from_config
from subllm.models.arch.tensors import tensor_shapes
from subllm.models.store.names import kind_of
from subllm.models.weights.gguf_file import GgufFile

_LONGEST = 48  # of a family, so that a language and a tag fit behind it
_SIZE = re.compile(r"(?:\d{1,3}x)?\d{1,4}(?:\.\d{1,3})?[kmbt]")
# How a file is coded is no part of what the model is.
_CODING = re.compile(r"[-._ ](?:i1[-._])?(?:i?q\d\w*|bf16|fp?16|fp?32)(?=$|[-. ])")
_PLAIN = {"instruct", "chat", "it", "hf", "gguf", "awq", "gptq", "safetensors"}
# What a directory or a file is called when nobody thought of a name.
_VAGUE = re.compile(
    r"(?:ggml-)?models?|weights|outputs?|merged|final|best|latest|main|tmp|base|snapshots?"
    r"|(?:checkpoints?|step|epoch|iter)?-?\d*|[0-9a-f]{12,}"
)
_CACHED = re.compile(r"models--[^/]+--(?P<name>[^/]+)/snapshots/")
_UNITS = ((1e12, "t"), (1e9, "b"), (1e6, "m"))


def derive_name(titles: Iterable[str], config: Mapping[str, Any]) -> str:
    """`family:size` from the first of `titles` that says something. A size that it does not
    tell is the number of parameters that `config` has. Raises WeightsError for a bad config.
    """
    parts = [_split(title) for title in titles]
    parts = [part for part in parts if part[0]] or [("base", "")]
    family, size = next((p for p in parts if not _VAGUE.fullmatch(p[0])), parts[0])
    name = f"{family}:{size or size_label(_parameters(config))}"
    assert kind_of(name) == "base", name
    return name


def named_size(title: str) -> str:
    """`family:size` where the title tells both, else ""."""
    family, size = _split(title)
    return f"{family}:{size}" if family and size and not _VAGUE.fullmatch(family) else ""


def own_name(name: str) -> str:
    """A name beside `name`, for a model that only looks like the catalog's."""
    family, _, size = name.partition(":")
    return f"{family}-own:{size}"


def size_label(parameters: int) -> str:
    """A count of parameters as names have it: 494m, 1.5b, 7.2b."""
    for scale, unit in _UNITS:
        if parameters >= scale:
            count = parameters / scale
            return f"{count:.{1 if count < 10 else 0}f}".removesuffix(".0") + unit
    return f"{max(1, round(parameters / 1000))}k"


def directory_titles(path: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Of a checkpoint in the directory `path`, best first. The config often has the name of the
    model that this one was trained from, so it comes after the directory's own."""
    titles = [path.name]
    if cached := _CACHED.search(f"{path.as_posix()}/"):
        titles.append(cached["name"])
    origin = config.get("_name_or_path")
    if isinstance(origin, str):
        titles.append(origin.rstrip("/").rpartition("/")[2])
    return (*titles, path.parent.name)


def gguf_titles(path: Path) -> tuple[str, ...]:
    """Of a GGUF file, best first: what its metadata say, then its own name."""
    file = GgufFile(path)
    try:
        said = {
            key: value
            for key in ("basename", "size_label", "finetune", "version", "name")
            if isinstance(value := file.metadata.get(f"general.{key}"), str)
        }
    finally:
        file.file.close()
    titles = []
    if said.get("basename"):
        parts = (said.get(key, "") for key in ("basename", "size_label", "finetune", "version"))
        titles.append("-".join(part for part in parts if part))
    return (*titles, said.get("name", ""), path.stem, path.parent.name)


def _split(title: str) -> tuple[str, str]:
    """Family and size of a title, in the letters of names; either may be empty."""
    plain = unicodedata.normalize("NFKD", title[:200]).encode("ascii", "ignore").decode().lower()
    words = re.split(r"[-_\s]+", _CODING.sub("", plain).strip("-_. "))
    size = next((word for word in words if _SIZE.fullmatch(word)), "")
    kept = [word for word in words if word != size]
    family = "-".join(word for i, word in enumerate(kept) if i == 0 or word not in _PLAIN)
    family = re.sub(r"[^a-z0-9.]+", "-", family)
    family = re.sub(r"[.-]{2,}", "-", family).strip(".-")
    return family[:_LONGEST].rstrip(".-"), size


def _parameters(config: Mapping[str, Any]) -> int:
    return sum(prod(shape) for shape in tensor_shapes(spec_from_config(config)).values())
