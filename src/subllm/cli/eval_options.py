"""Options that `subllm eval` and `subllm study` have in common, and what they amount to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, cast

import typer

if TYPE_CHECKING:
    from subllm.evaluation.prompts import Asked

DIRECTORY = "evaluations"
"""Of the records, in the store."""

_SAMPLED = 0.8  # temperature where several samples are asked for and none is given

K = Annotated[str, typer.Option("--k", help="The k of pass@k, several as 1,10.")]
Samples = Annotated[
    int | None, typer.Option(min=1, help="Completions of each problem. Default: largest k.")
]
Temperature = Annotated[
    float | None,
    typer.Option(min=0, help="0 is greedy. Default: 0 for one sample, 0.8 for several."),
]
TopP = Annotated[float, typer.Option(min=0, max=1, help="Share of the mass sampled from.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Longest completion.")]
Seed = Annotated[int, typer.Option(min=0, help="Decides what is sampled.")]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        help="How problems are put: raw (text to go on with), chat (the model's template), "
        "auto (chat where there is a template).",
    ),
]
Batch = Annotated[int, typer.Option(min=1, help="Completions written at once.")]
Unsafe = Annotated[
    bool,
    typer.Option("--unsafe", help="Run programs although this machine cannot contain them."),
]


@dataclass(frozen=True)
class Drawn:
    """How many completions of a problem there are, and how they are drawn."""

    ks: tuple[int, ...]
    samples: int
    temperature: float


def drawn(k: str, samples: int | None, temperature: float | None) -> Drawn:
    """What the options say, or leave to say. Raises UsageError for a --k that is no list."""
    from subllm.errors import UsageError

    try:
        ks = tuple(sorted({int(part) for part in k.split(",")}))
    except ValueError:
        raise UsageError(f"--k {k!r} is no list of numbers; write 1,10") from None
    count = max(ks) if samples is None else samples
    usual = 0.0 if count == 1 else _SAMPLED
    return Drawn(ks, count, usual if temperature is None else temperature)


def parse_format(text: str) -> Asked:
    """Raises UsageError."""
    from subllm.errors import UsageError

    if text not in ("raw", "chat", "auto"):
        raise UsageError(f"--format {text!r} is none of raw, chat, auto")
    return cast("Asked", text)
