"""The formats: their value types, what they write, how their result is used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from subllm.errors import UnknownNameError, UsageError
from subllm.sharing.export import compressed, gguf_model, hf
from subllm.sharing.export.job import ExportJob, Piece


@dataclass(frozen=True)
class Format:
    """types: of weights, the default first. title, usage: for the card; `{file}` is the name of
    the weights' file."""

    name: str
    types: tuple[str, ...]
    pieces: Callable[[ExportJob, str], list[Piece]]
    title: str
    usage: str


_TRANSFORMERS = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
model = AutoModelForCausalLM.from_pretrained(".", dtype="auto")
ids = tokenizer("def is_prime(n: int) -> bool:\\n", return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, max_new_tokens=64)[0]))
```
"""

FORMATS = {
    entry.name: entry
    for entry in (
        Format(
            "hf",
            tuple(hf.TYPES),
            lambda job, _: hf.pieces(job),
            "The zeros are stored: size and speed are a dense model's, wherever it is served; "
            "packed and sparse it runs in subllm alone.",
            _TRANSFORMERS + "\n`vllm serve .` serves it as any dense model.",
        ),
        Format(
            "gguf",
            gguf_model.TYPES,
            gguf_model.pieces,
            "The zeros are stored: size and speed are those of a dense model of these types; "
            "packed and sparse it runs in subllm alone.",
            "```bash\nllama-server -m {file}\n```",
        ),
        Format(
            "compressed-tensors",
            ("bf16", "f16"),
            lambda job, _: compressed.pieces(job),
            "Stored in the format sparse-24-bitmask of compressed-tensors: about half of the "
            "bytes of the dense model.",
            "With compressed-tensors before 0.15 and what loads through it: transformers 4, "
            "vLLM up to 0.18.",
        ),
    )
}


def format_of(name: str, kind: str | None) -> tuple[Format, str]:
    """The format and the type of weights, its default for None. Raises UnknownNameError,
    UsageError."""
    found = FORMATS.get(name)
    if found is None:
        raise UnknownNameError("format", name, FORMATS, f"formats are {', '.join(FORMATS)}")
    if kind is None:
        return found, found.types[0]
    if kind not in found.types:
        raise UsageError(
            f"format {name} has no weights of type {kind!r}; use {', '.join(found.types)}"
        )
    return found, kind
