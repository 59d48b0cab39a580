"""Grammars over the tokens of a model: which of them may come next.

llguidance compiles a grammar (a JSON schema, or rules in its dialect of Lark's language) and
follows a completion through it, over the bytes of its tokens.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import llguidance
import numpy as np
import numpy.typing as npt

from subllm.errors import UsageError
from subllm.text.compact_json import COMPACT
from subllm.text.tokenizer import Tokenizer


def schema_grammar(schema: Mapping[str, Any]) -> str:
    """The grammar of the JSON values that a schema describes. Raises UsageError."""
    try:
        options: Any = dict(COMPACT)
        made: str = llguidance.LLMatcher.grammar_from_json_schema(dict(schema), overrides=options)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the schema cannot be read: {_line(str(error))}") from error
    return made


class Matcher:
    """Follows one completion; a `runtime.constraint.Constraint`."""

    def __init__(self, matcher: Any, vocab_size: int) -> None:
        self._matcher = matcher
        self._bits: npt.NDArray[np.uint32] = np.zeros((vocab_size + 31) // 32, np.uint32)

    @property
    def error(self) -> str | None:
        return _line(self._matcher.get_error()) if self._matcher.is_error() else None

    def allowed(self) -> npt.NDArray[np.uint32]:
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        return self._bits

    def take(self, token: int) -> None:
        self._matcher.consume_token(token)


class Grammars:
    """Compiles grammars for one tokenizer. Thread-safe. The first takes a second, in which all
    tokens are sorted by their bytes; for half of it llguidance holds the interpreter's lock, and
    other threads wait."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._tokens: Any = None

    def matcher(self, grammar: str) -> Matcher:
        """For one completion. Raises UsageError for a grammar that cannot be followed."""
        tokens = self._sorted_tokens()
        matcher = llguidance.LLMatcher(tokens, grammar, log_level=0)
        if matcher.is_error():
            raise UsageError(_line(matcher.get_error()))
        return Matcher(matcher, self._tokenizer.vocab_size)

    def _sorted_tokens(self) -> Any:
        with self._lock:
            if self._tokens is None:
                source = llguidance.TokenizerWrapper(_Tokens(self._tokenizer))
                slices = llguidance.LLTokenizer.json_slices()
                ends = list(self._tokenizer.eos_ids)
                self._tokens = llguidance.LLTokenizer(source, eos_token=ends, slices=slices)
            return self._tokens


class _Tokens:
    """A tokenizer as llguidance asks for one."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        if not tokenizer.eos_ids:
            raise UsageError("this model has no token that ends a text; leave the form out")
        self._tokenizer = tokenizer
        self.eos_token_id = tokenizer.eos_ids[0]
        self.bos_token_id = tokenizer.bos_id
        self.tokens = [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)]
        self.special_token_ids = sorted({*tokenizer.special_ids, *tokenizer.eos_ids})

    def __call__(self, text: bytes) -> list[int]:
        return self._tokenizer.encode_plain(text.decode("utf-8", "replace"))


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
