"""Text to measure a model on, as tokens of that model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from subllm.errors import BenchmarkError
from subllm.making.calibration.files import FilesSource
from subllm.making.calibration.jsonl import JsonlSource
from subllm.making.calibration.load import TextOrigin, load_heldout
from subllm.making.calibration.render import Renderer
from subllm.making.calibration.sampler import Amount, pack, row_content, take
from subllm.making.calibration.source import TextSource
from subllm.models.catalog.prompt import PromptSpec
from subllm.models.text.tokenizer import Tokenizer

SEQUENCES = 8
LENGTH = 512
"""What `subllm extract` measures its loss on, so that the figures compare."""


def held_out(
    language: str,
    tokenizer: Tokenizer,
    prompt: PromptSpec,
    *,
    sequences: int = SEQUENCES,
    length: int = LENGTH,
    path: Path | None = None,
) -> tuple[npt.NDArray[np.int32], str]:
    """int32 [<= sequences, length], never repeated, and what it is from.

    path  a directory of code or a .jsonl file, all of which is taken as held out; by
          default the held-out part of the language's pack
    Raises BenchmarkError for too little text, CalibrationError or TableError for what cannot
    be read.
    """
    if path is None:
        tokens = load_heldout(
            TextOrigin(language),
            Renderer(tokenizer, prompt),
            sequences=sequences,
            seq_len=length,
        )
        return tokens, f"pack:{language} (held out)"
    source = _source(path, language)
    width = row_content(tokenizer, length)
    taken = take(source, Renderer(tokenizer, prompt), Amount(sequences * width), 0, repeat=False)
    if taken.tokens < width:
        raise BenchmarkError(
            f"{path} has {taken.tokens} tokens of {language}, at least {width} are needed; "
            "give more text"
        )
    return pack(taken.documents, tokenizer, taken.tokens // width, length), source.name


def _source(path: Path, language: str) -> TextSource:
    if path.is_dir():
        return FilesSource(path, language, "all")
    if path.suffix == ".jsonl" and path.exists():
        return JsonlSource(path, "all")
    raise BenchmarkError(f"{path} is no directory and no .jsonl file; correct --data")
