"""A byte-level tokenizer with what a test asks for, a prompt spec, and packs."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from oracles import tiny_models
from oracles.tiny_models import END, FILL, MARK

from subllm.models.catalog.prompt import FimSpec, PromptSpec
from subllm.models.text.tokenizer import Tokenizer

__all__ = ["CODE", "END", "FILL", "FIM", "MARK", "PLAIN", "bytes_of", "tokenizer", "write_pack"]

TEMPLATE = (
    "{% for m in messages %}<|mark|>{{ m.role }}\n{{ m.content | trim }}<|fill|>\n{% endfor %}"
)
PLAIN = PromptSpec(context_length=256)
# Two special tokens must serve as three markers.
FIM = PromptSpec(
    fim=FimSpec(prefix="<|mark|>", suffix="<|fill|>", middle="<|mark|><|fill|>"),
    context_length=256,
)
CODE = """import math


def area(radius):
    # a circle
    return math.pi * radius**2


def double(value):
    return value * 2
"""


def tokenizer(template: str | None = TEMPLATE, bos: bool = False) -> Tokenizer:
    """The tiny tokenizer with a chat template; with `bos`, MARK opens every text."""
    bundle = json.loads(tiny_models.tokenizer().to_bundle())
    bundle["facts"]["chat_template"] = template
    if bos:
        bundle["facts"] |= {"bos_id": MARK, "add_bos": True}
    return Tokenizer.from_bundle(json.dumps(bundle).encode())


def bytes_of(text: str) -> list[int]:
    """What the tiny tokenizer makes of a plain text."""
    return list(text.encode())


def sample(number: int, split: str = "train", **changes: Any) -> dict[str, Any]:
    made = {
        "id": f"s{number}",
        "split": split,
        "instruction": f"Write function number {number}.",
        "answer": "code",
        "tag": "python",
        "code": f"def f{number}(x):\n    y = x + {number}\n    return y * {number}\n",
        **changes,
    }
    return {key: value for key, value in made.items() if value is not None}


def write_pack(
    path: Path, samples: Iterable[Mapping[str, Any]], header: Mapping[str, Any] | None = None
) -> None:
    language = path.name.partition(".")[0]
    first = header or {"pack": language, "version": 1, "provenance": {"licence": "test"}}
    with lzma.open(path, "wt", encoding="utf-8") as file:
        for line in (first, *samples):
            file.write(json.dumps(line) + "\n")
