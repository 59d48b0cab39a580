"""What a step may ask for, checked before anything changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from subllm.engine.backend import Chunk, TokenArray
from subllm.errors import BackendError


def as_tokens(values: Any) -> TokenArray:
    """int32 [n], checked where it is not that already. Raises BackendError."""
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise BackendError(f"tokens must be integers [n], not {array.dtype} {array.shape}")
    if array.dtype != np.int32:
        limits = np.iinfo(np.int32)
        if array.size and not limits.min <= array.min() <= array.max() <= limits.max:
            raise BackendError("a token does not fit 32 bits; check the prompt")
        array = array.astype(np.int32)
    return np.ascontiguousarray(array)


def check_tokens(values: Any, vocab_size: int) -> TokenArray:
    """At least one token of the vocabulary. Raises BackendError: on a GPU another one would end
    the process's use of it."""
    tokens = as_tokens(values)
    if not len(tokens):
        raise BackendError("a chunk has no tokens")
    if int(tokens.min()) < 0 or int(tokens.max()) >= vocab_size:
        raise BackendError(f"a token is outside the vocabulary of {vocab_size}")
    return tokens


def check_chunks(chunks: Sequence[Chunk], vocab_size: int, context_length: int) -> list[TokenArray]:
    """The tokens of each. Raises BackendError for chunks that cannot run together."""
    if len({chunk.kv for chunk in chunks}) < len(chunks):
        raise BackendError("two chunks of a step are of the same slab")
    found = []
    for chunk in chunks:
        tokens = check_tokens(chunk.tokens, vocab_size)
        if not isinstance(chunk.start, int) or chunk.start < 0:
            raise BackendError(f"a chunk cannot start at {chunk.start!r}")
        if chunk.start + len(tokens) > context_length:
            raise BackendError(f"a chunk ends beyond the model's {context_length} positions")
        if len(chunk.draws) > len(tokens):
            raise BackendError("a chunk has more draws than tokens")
        found.append(tokens)
    return found
