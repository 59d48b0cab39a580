"""A request for the log-probabilities of its own tokens, which runs like a prompt."""

from __future__ import annotations

from collections.abc import Sequence as Listed
from dataclasses import replace

from subllm.engine.backend import TokenArray
from subllm.engine.output import CompletionText
from subllm.engine.params import TokenLogprob
from subllm.engine.request import Request, TokenEvent
from subllm.engine.sequence import Sequence
from subllm.models.text.tokenizer import Tokenizer


class ScoringSequence(Sequence):
    """`request.score` alternatives for each token but the first. The last token does not run:
    nothing follows it. One that had to start over tells nothing twice."""

    def __init__(self, request: Request, tokenizer: Tokenizer) -> None:
        assert request.score is not None
        whole = replace(request, params=replace(request.params, max_tokens=0))
        super().__init__(whole, CompletionText(tokenizer, ()), {})
        self.top = request.score
        self._length -= 1
        self._told = 0

    @property
    def completion_length(self) -> int:
        return 0

    def targets(self, count: int) -> TokenArray:
        """The tokens that follow the next `count` ones."""
        return self._buffer[self.computed + 1 : self.computed + count + 1]

    def scored(self, entries: Listed[TokenLogprob]) -> TokenEvent:
        """The log-probabilities of the next targets, one each; they are computed now."""
        new = tuple(entries[max(0, self._told - self.computed) :])
        self.computed += len(entries)
        self._told = max(self._told, self.computed)
        return self._event("", logprobs=new, finish=None if self.pending else "length")
