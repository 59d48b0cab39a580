"""From a text prompt that is asked for to the tokens that a model goes on with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from subllm.models.text import fim
from subllm.models.text.hole_end import Hole
from subllm.serving.server.errors import bad_request
from subllm.serving.server.generation import Generation, Prompt
from subllm.serving.server.models import ServedModel, TextSide
from subllm.serving.server.windows import Windows

CHARS = 16  # of each token that the context has: more of a text is of no use


@dataclass(frozen=True)
class Encoded:
    """A prompt; the end of it that the completion begins with, and the hole that it fills, as in
    `Request`."""

    ids: tuple[int, ...]
    begun: tuple[int, ...] = ()
    hole: Hole | None = None

    @property
    def all_ids(self) -> tuple[int, ...]:
        return self.ids + self.begun


class PromptEncoder:
    """context: tokens of prompt and completion that are served of a model."""

    def __init__(self, context: Callable[[ServedModel], int]) -> None:
        self._context = context
        self._windows = Windows()

    def encode(
        self,
        prompt: Prompt,
        asked: Generation,
        model: ServedModel,
        text: TextSide,
        session: str | None = None,
    ) -> Encoded:
        """session: by which editors are told apart (`Windows`). Raises ApiError for what the model
        cannot go on from."""
        tokenizer = text.tokenizer
        if isinstance(prompt, tuple):
            if max(prompt) >= tokenizer.vocab_size:
                size = tokenizer.vocab_size
                message = f"token id {max(prompt)} is not below the vocabulary size {size}"
                raise bad_request(message, "prompt")
            return Encoded(prompt)
        spec, suffix = model.prompt.fim, asked.suffix
        if suffix is not None:
            if spec is None:
                name = model.ref.name
                message = f"{name} has no fill-in-the-middle markers; leave suffix out"
                raise bad_request(message, "suffix")
            return self._fill(prompt, suffix, asked, model, text, session)
        if spec is not None and not asked.echo:
            parts = fim.sides(spec, tokenizer, prompt)  # an editor that writes the markers itself
            if parts is not None:
                return self._fill(*parts, asked, model, text, session)
        if prompt:
            if asked.echo or _as_it_is(asked):
                return Encoded(tuple(tokenizer.encode(prompt)))
            return Encoded(*fim.encode_begun(tokenizer, prompt))
        starts = [tokenizer.bos_id, *tokenizer.eos_ids]
        start = next((token for token in starts if token is not None), None)
        if start is None:
            raise bad_request("prompt: this model cannot start from an empty prompt", "prompt")
        return Encoded((start,))

    def _fill(
        self,
        before: str,
        after: str,
        asked: Generation,
        model: ServedModel,
        text: TextSide,
        session: str | None,
    ) -> Encoded:
        """With as many of the other files, the most relevant ones, as there is room for."""
        spec, tokenizer, extra = model.prompt.fim, text.tokenizer, asked.extra
        assert spec is not None
        context = self._context(model)
        sent = before
        if not _as_it_is(asked):
            before = self._windows.steady(session, before)
        while sum(len(content) for _, content in extra) > CHARS * context:
            extra = extra[1:]
        while True:
            if _as_it_is(asked):
                ids = fim.encode(spec, tokenizer, before, after, path=asked.path, extra=extra)
                encoded = Encoded(ids)
            else:
                ids, begun = fim.at_cursor(
                    spec, tokenizer, before, after, path=asked.path, extra=extra
                )
                hole = None if asked.ignore_eos else Hole.between(before, after)
                encoded = Encoded(ids, begun, hole)
            length = len(encoded.all_ids)
            answer = min(asked.max_tokens or 0, context // 4)
            if len(before) > len(sent) and length + answer >= context:
                before = sent
            elif extra and length >= context:
                extra = extra[1:]
            else:
                return encoded


def _as_it_is(asked: Generation) -> bool:
    """Whether the completion is all that the model says from the first token after the prompt:
    log-probabilities are told of it, or what keeps to a schema begins there."""
    return asked.logprobs is not None or asked.form is not None
