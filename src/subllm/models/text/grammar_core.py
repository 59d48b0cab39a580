"""llguidance by its C interface, which its Python package exports (`llguidance.h` describes it).

Its Python interface holds the interpreter's lock while it sorts a vocabulary, 0.6 s for 150,000
tokens in which no other thread runs. Calls through `ctypes` let the others go on.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Sequence
from ctypes import POINTER, c_bool, c_char_p, c_int32, c_size_t, c_uint8, c_uint32, c_void_p
from functools import cache
from typing import Any

import llguidance
import numpy as np
import numpy.typing as npt

from subllm.errors import EngineError

SPECIAL = b"\xff"
"""Begins the bytes of a token that is no text."""

_TOKENIZE = ctypes.CFUNCTYPE(
    c_size_t, c_void_p, POINTER(c_uint8), c_size_t, POINTER(c_uint32), c_size_t
)


class _TokenizerInit(ctypes.Structure):
    """LlgTokenizerInitV2; later versions read no more of it than `struct_size`."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("vocab_size", c_uint32),
        ("tok_eos", c_uint32),
        ("token_lens", c_void_p),
        ("token_bytes", c_char_p),
        ("tokenizer_json", c_char_p),
        ("tokenize_assumes_string", c_bool),
        ("tokenize_fn", _TOKENIZE),
        ("use_approximate_greedy_tokenize_fn", c_bool),
        ("tokenize_user_data", c_void_p),
        ("slices", POINTER(c_char_p)),
        ("tok_eos_extra", c_void_p),
        ("tok_eos_extra_count", c_uint32),
    )


class _MatcherInit(ctypes.Structure):
    """LlgConstraintInit, as far as it is read here; its limits and what later versions may add
    have room behind."""

    _fields_ = (
        ("tokenizer", c_void_p),
        ("log_buffer_level", c_uint32),
        ("log_stderr_level", c_uint32),
        ("others", c_uint8 * 512),
    )


class Vocabulary:
    """The tokens of a model, sorted. Thread-safe."""

    def __init__(
        self, tokens: Sequence[bytes], ends: Sequence[int], encode: Callable[[str], Sequence[int]]
    ) -> None:
        """tokens  bytes of each; empty: it never comes
        ends    tokens that end a text, the main one first
        encode  a text as the model's tokenizer cuts it; called on any thread
        """

        def tokenize(_: Any, text: Any, length: int, into: Any, room: int) -> int:
            ids = encode(ctypes.string_at(text, length).decode("utf-8", "replace"))
            for place, token in enumerate(ids[:room]):
                into[place] = token
            return len(ids)

        self._tokenize = _TOKENIZE(tokenize)  # is called for as long as the handle lives
        lengths = np.array([len(token) for token in tokens], np.uint32)
        others = np.array(ends[1:], np.uint32)
        slices = [piece.encode() for piece in llguidance.LLTokenizer.json_slices()]
        init = _TokenizerInit(
            struct_size=ctypes.sizeof(_TokenizerInit),
            vocab_size=len(tokens),
            tok_eos=ends[0],
            token_lens=lengths.ctypes.data,
            token_bytes=b"".join(tokens),
            tokenize_assumes_string=True,
            tokenize_fn=self._tokenize,
            slices=(c_char_p * (len(slices) + 1))(*slices, None),
            tok_eos_extra=others.ctypes.data,
            tok_eos_extra_count=len(others),
        )
        error = ctypes.create_string_buffer(300)
        handle = _free().llg_new_tokenizer_v2(ctypes.byref(init), error, len(error))
        if not handle:
            raise EngineError(f"llguidance: {error.value.decode('utf-8', 'replace')}")
        self.handle: int = handle
        self.ends = frozenset(ends)
        self.words = (len(tokens) + 31) // 32
        weakref.finalize(self, _held().llg_free_tokenizer, handle)


class Follower:
    """One text on its way through a grammar; used by one thread at a time."""

    def __init__(self, vocabulary: Vocabulary, grammar: str) -> None:
        """`grammar` is in llguidance's JSON or in its dialect of Lark's language; `error` tells
        whether it could be read."""
        init = _MatcherInit()
        _held().llg_constraint_init_set_defaults(ctypes.byref(init), vocabulary.handle)
        init.log_stderr_level = 0
        kind = b"llguidance" if grammar.lstrip().startswith("{") else b"lark"
        self._vocabulary = vocabulary  # lives as long
        self._handle = _free().llg_new_matcher(ctypes.byref(init), kind, grammar.encode())
        self._bits: npt.NDArray[np.uint32] = np.zeros(vocabulary.words, np.uint32)
        self._place = self._bits.ctypes.data
        weakref.finalize(self, _held().llg_free_matcher, self._handle)

    @property
    def error(self) -> str | None:
        text: bytes | None = _held().llg_matcher_get_error(self._handle)
        return None if text is None else text.decode("utf-8", "replace")

    def allowed(self) -> npt.NDArray[np.uint32]:
        """A bit for each token that may come next; valid until the next call."""
        if _free().llg_matcher_compute_mask_into(self._handle, self._place, self._bits.nbytes):
            self._bits[:] = 0
        return self._bits

    def take(self, token: int) -> None:
        library = _held()
        if token in self._vocabulary.ends and library.llg_matcher_is_stopped(self._handle):
            return
        library.llg_matcher_consume_token(self._handle, token)


@cache
def _free() -> Any:
    """For calls that take long: other threads run meanwhile."""
    return _declared(ctypes.CDLL(llguidance._lib.__file__))


@cache
def _held() -> Any:
    """For short calls, not worth waiting for the interpreter again."""
    return _declared(ctypes.PyDLL(llguidance._lib.__file__))


def _declared(library: Any) -> Any:
    for name, result, arguments in (
        ("llg_new_tokenizer_v2", c_void_p, (c_void_p, c_char_p, c_size_t)),
        ("llg_free_tokenizer", None, (c_void_p,)),
        ("llg_constraint_init_set_defaults", None, (c_void_p, c_void_p)),
        ("llg_new_matcher", c_void_p, (c_void_p, c_char_p, c_char_p)),
        ("llg_free_matcher", None, (c_void_p,)),
        ("llg_matcher_get_error", c_char_p, (c_void_p,)),
        ("llg_matcher_compute_mask_into", c_int32, (c_void_p, c_void_p, c_size_t)),
        ("llg_matcher_consume_token", c_int32, (c_void_p, c_uint32)),
        ("llg_matcher_is_stopped", c_bool, (c_void_p,)),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
