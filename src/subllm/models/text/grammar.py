"""Grammars over the tokens of a model: which of them may come next.

llguidance compiles a grammar (a JSON schema, or rules in its dialect of Lark's language) and
follows a completion through it, over the bytes of its tokens.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import llguidance

from subllm.errors import UsageError
from subllm.models.text.compact_json import COMPACT
from subllm.models.text.grammar_core import SPECIAL, Follower, Vocabulary
from subllm.models.text.tokenizer import Tokenizer

_AT_ONCE = 512
"""Tokens, a millisecond's work, after which who waits for the interpreter has it."""

_PAUSE = 1e-4  # seconds: with none it would not be handed over


def schema_grammar(schema: Mapping[str, Any]) -> str:
    """The grammar of the JSON values that a schema describes. Raises UsageError."""
    try:
        options: Any = dict(COMPACT)
        made: str = llguidance.LLMatcher.grammar_from_json_schema(dict(schema), overrides=options)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the schema cannot be read: {_line(str(error))}") from error
    return made


class Matcher:
    """Follows one completion; a `engine.constraint.Constraint`."""

    done = False  # what follows a whole text is its end

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self.allowed = follower.allowed
        self.take = follower.take

    @property
    def error(self) -> str | None:
        error = self._follower.error
        return None if error is None else _line(error)


class Grammars:
    """Compiles grammars for one tokenizer. Thread-safe. The first takes a second, in which all
    tokens are sorted by their bytes; other threads run meanwhile."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._vocabulary: Vocabulary | None = None

    def matcher(self, grammar: str) -> Matcher:
        """For one completion. Raises UsageError for a grammar that cannot be followed."""
        follower = Follower(self._sorted(), grammar)
        if follower.error is not None:
            raise UsageError(_line(follower.error))
        return Matcher(follower)

    def _sorted(self) -> Vocabulary:
        with self._lock:
            if self._vocabulary is None:
                ends = self._tokenizer.eos_ids
                if not ends:
                    text = "this model has no token that ends a text; leave the form out"
                    raise UsageError(text)
                tokens = _bytes_of_tokens(self._tokenizer)
                self._vocabulary = Vocabulary(tokens, ends, self._tokenizer.encode_plain)
            return self._vocabulary


def _bytes_of_tokens(tokenizer: Tokenizer) -> list[bytes]:
    special = {*tokenizer.special_ids, *tokenizer.eos_ids}
    tokens = []
    for token in range(tokenizer.vocab_size):
        if token % _AT_ONCE == 0:
            time.sleep(_PAUSE)
        text = tokenizer.token_bytes(token)
        tokens.append(SPECIAL + text if token in special else text)
    return tokens


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
