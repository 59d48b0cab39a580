"""llama.cpp as an engine of `generate`: requests in, token events out.

Calls llama.cpp's own functions with its defaults, not the Python layer above them: a decoded
token costs llama_decode and the greedy sampler. With a `lookup` it drafts as that layer does
(LlamaPromptLookupDecoding proposes) and verifies all drafted tokens in one llama_decode; the
layer itself would copy the logits of every token through numpy, which costs more than drafts
bring.
"""

from __future__ import annotations

import codecs
import ctypes
from dataclasses import dataclass, field
from typing import Any

import llama_cpp as lib
import numpy as np
from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

from subllm.engine.request import FinishReason, Request, TokenEvent

MAX_NGRAM = 2  # LlamaPromptLookupDecoding's default


@dataclass
class _Sequence:
    """tokens: prompt and what was accepted; `computed` of them are in KV memory."""

    request: Request
    slot: int
    tokens: list[int]
    computed: int = 0
    text: Any = field(default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"))


class LlamaEngine:
    """Greedy completions, prompts one at a time, `together` decoded at once."""

    def __init__(self, model: Any, threads: int, longest: int, together: int) -> None:
        """longest: tokens of a request, prompt included; together: requests at once"""
        length = -(-longest // 256) * 256
        params = lib.llama_context_default_params()
        params.n_ctx = together * length
        params.n_seq_max = together
        params.n_threads = params.n_threads_batch = threads
        self._context = lib.llama_init_from_model(model, params)
        if not self._context:
            raise MemoryError("llama.cpp made no context; is there enough memory?")
        self._memory = lib.llama_get_memory(self._context)
        self._vocab = lib.llama_model_get_vocab(model)
        self._sampler = lib.llama_sampler_init_greedy()
        self._most = params.n_batch
        self._batch = lib.llama_batch_init(self._most, 0, 1)
        self._proposer: LlamaPromptLookupDecoding | None = None
        self._free = list(range(together))[::-1]
        self._waiting: list[Request] = []
        self._running: dict[str, _Sequence] = {}
        self.drafted = self.accepted = self.rounds = 0

    def draft_by_lookup(self, tokens: int) -> None:
        """Drafts at most so many tokens a round from now on, none for 0."""
        self._proposer = LlamaPromptLookupDecoding(MAX_NGRAM, tokens) if tokens else None

    def add(self, request: Request) -> None:
        if request.params.stop or request.params.temperature:
            raise ValueError("only greedy completions without stop strings are written here")
        self._waiting.append(request)

    def abort(self, request_id: str) -> None:
        self._waiting = [one for one in self._waiting if one.id != request_id]
        if request_id in self._running:
            self._end(self._running[request_id])

    def step(self) -> list[TokenEvent]:
        """The prompt of a request that waits, else a token of each that runs, or more of the
        one that drafts."""
        if self._waiting and self._free:
            request = self._waiting.pop(0)
            one = _Sequence(request, self._free.pop(), list(request.prompt))
            self._running[request.id] = one
            return self._prompt(one)
        if self._proposer is not None:
            return [event for one in list(self._running.values()) for event in self._draft(one)]
        running = list(self._running.values())
        drawn = self._decode([(one, one.tokens[one.computed :]) for one in running])
        return [self._accept(one, token) for one, (token,) in zip(running, drawn, strict=True)]

    def _prompt(self, one: _Sequence) -> list[TokenEvent]:
        rest = one.tokens
        while len(rest) > self._most:
            self._decode([(one, rest[: self._most])])
            rest = rest[self._most :]
        ((token,),) = self._decode([(one, rest)])
        return [self._accept(one, token)]

    def _draft(self, one: _Sequence) -> list[TokenEvent]:
        """One round: proposed tokens that are what would have been drawn stay."""
        assert self._proposer is not None
        left = one.request.params.max_tokens - (len(one.tokens) - len(one.request.prompt)) - 1
        proposed = self._proposer(np.array(one.tokens, np.intc))
        drafted = [int(token) for token in proposed][: max(0, left)]
        new = one.tokens[one.computed :]
        (drawn,) = self._decode([(one, new + drafted)], len(drafted) + 1)
        events: list[TokenEvent] = []
        kept = len(one.tokens)
        for place, token in enumerate(drawn):
            events.append(self._accept(one, token))
            if events[-1].finish_reason is not None:
                break
            if place < len(drafted) and drafted[place] != token:
                break
            kept += place < len(drafted)
        self.rounds += bool(drafted)
        self.drafted += len(drafted)
        self.accepted += len(events) - 1
        if one.request.id in self._running:
            one.computed = kept
            lib.llama_memory_seq_rm(self._memory, one.slot, kept, -1)
        return events

    def _decode(self, work: list[tuple[_Sequence, list[int]]], draws: int = 1) -> list[list[int]]:
        """Computes tokens of sequences; what is drawn after the last `draws` of each."""
        batch, count, wanted = self._batch, 0, []
        for one, tokens in work:
            for place, token in enumerate(tokens):
                batch.token[count] = token
                batch.pos[count] = one.computed
                batch.n_seq_id[count] = 1
                batch.seq_id[count][0] = one.slot
                batch.logits[count] = place >= len(tokens) - draws
                one.computed += 1
                count += 1
            wanted.append(range(count - min(draws, len(tokens)), count))
        batch.n_tokens = count
        status = lib.llama_decode(self._context, batch)
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status}")
        return [
            [lib.llama_sampler_sample(self._sampler, self._context, place) for place in places]
            for places in wanted
        ]

    def _accept(self, one: _Sequence, token: int) -> TokenEvent:
        params = one.request.params
        if lib.llama_vocab_is_eog(self._vocab, token) and not params.ignore_eos:
            return self._event(one, one.text.decode(b"", True), (), "stop")
        one.tokens.append(token)
        text = one.text.decode(self._piece(token))
        ended = len(one.tokens) - len(one.request.prompt) >= params.max_tokens
        if ended:
            text += one.text.decode(b"", True)
        return self._event(one, text, (token,), "length" if ended else None)

    def _event(
        self, one: _Sequence, text: str, tokens: tuple[int, ...], finish: FinishReason | None
    ) -> TokenEvent:
        if finish is not None:
            self._end(one)
        return TokenEvent(one.request.id, text, tokens, finish_reason=finish)

    def _end(self, one: _Sequence) -> None:
        lib.llama_memory_seq_rm(self._memory, one.slot, -1, -1)
        self._free.append(one.slot)
        del self._running[one.request.id]

    def _piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(256)
        size = lib.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, True)
        return buffer.raw[: max(size, 0)]
