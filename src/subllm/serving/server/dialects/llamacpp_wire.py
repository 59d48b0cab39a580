"""The bodies of llama.cpp's /infill and /completion.

Honoured: what the classes declare; `n_predict` 0 computes the prompt and keeps it for the next
request, -1 and -2 go on to the end of the context. Of no effect here, and accepted: samplers
(always temperature, top_k, top_p, min_p), cache_prompt and id_slot (prefixes are always
kept), t_max_prompt_ms, lora, n_keep, n_discard, min_keep, repeat_last_n (penalties look at
everything), and what only tunes samplers that are off. The default temperature is 0.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from subllm.serving.server.dialects.body import Body, Predict, prompts, stops
from subllm.serving.server.dialects.tools_wire import Schema
from subllm.serving.server.generation import UNBOUNDED, Draws, Generation
from subllm.serving.server.refusals import refuse
from subllm.serving.server.trimming import Trim
from subllm.serving.server.values import (
    Bias,
    Count,
    MinP,
    Penalty,
    Repetition,
    Seed,
    Temperature,
    Text,
    Texts,
    TokenIds,
    TopK,
    TopP,
    Wire,
)

_REFUSED: dict[str, tuple[Any, ...]] = {
    "grammar": (),
    "image_data": (),
    "multimodal_data": (),
    "n_probs": (),
    "mirostat": (),
    "typical_p": (1, 1.0),
    "top_n_sigma": (-1, -1.0),
    "dynatemp_range": (),
    "dry_multiplier": (),
    "xtc_probability": (),
}
_LONGEST = 24 * 3600 * 1000  # ms

# A token id with its bias; false forbids it.
Pair = Annotated[list[int | Bias | Literal[False]], Field(min_length=2, max_length=2)]


class Native(Body):
    """What both routes share."""

    n_predict: Predict | None = None
    n_cmpl: Count | None = None
    n_indent: Annotated[int, Field(ge=0, lt=2**16)] | None = None
    t_max_predict_ms: Annotated[float, Field(ge=-1, le=_LONGEST)] | None = None
    stop: Text | Texts | None = None
    temperature: Temperature | None = None
    top_k: TopK | None = None
    top_p: TopP | None = None
    min_p: MinP | None = None
    repeat_penalty: Repetition | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Bias] | Annotated[list[Pair], Field(fail_fast=True)] | None = None
    seed: Seed | None = None
    ignore_eos: bool | None = None
    stream: bool | None = None
    return_tokens: bool | None = None
    response_fields: Annotated[Texts, Field(max_length=64)] | None = None
    json_schema: Schema | None = None

    def options(self) -> dict[str, Any]:
        """Fields of a `Generation`. Raises ApiError."""
        refuse(self.model_extra, _REFUSED)
        warm_up = self.n_predict == 0
        limit = self.n_predict
        if limit is not None:
            limit = 1 if warm_up else UNBOUNDED if limit < 0 else limit
        milliseconds = self.t_max_predict_ms or 0.0
        biases = self.logit_bias or {}
        if isinstance(biases, list):
            biases = {str(token): -100.0 if bias is False else bias for token, bias in biases}
        return {
            **self.chosen(),
            "n": self.n_cmpl or 1,
            "max_tokens": limit,
            "stop": tuple(stop for stop in stops(self.stop) if stop),
            "draws": Draws(
                temperature=self.temperature,
                top_k=self.top_k,
                top_p=self.top_p,
                min_p=self.min_p,
                repetition_penalty=self.repeat_penalty,
                presence_penalty=self.presence_penalty,
                frequency_penalty=self.frequency_penalty,
                logit_bias=biases,
                seed=None if self.seed == -1 else self.seed,
            ),
            "ignore_eos": bool(self.ignore_eos),
            "form": self.json_schema,
            "trim": Trim(
                indent=self.n_indent or 0,
                seconds=milliseconds / 1000 if milliseconds > 0 else None,
                warm_up=warm_up,
            ),
        }


class ExtraFile(Wire):
    text: Text
    filename: Text = "tmp"


class InfillBody(Native):
    """`prompt` is the start of the line that the cursor is in: it follows input_prefix."""

    input_prefix: Text
    input_suffix: Text
    input_extra: Annotated[list[ExtraFile], Field(fail_fast=True, max_length=1024)] | None = None
    prompt: Text | None = None

    def generation(self) -> Generation:
        """Raises ApiError."""
        return Generation(
            **self.options(),
            prompts=(self.input_prefix + (self.prompt or ""),),
            suffix=self.input_suffix,
            extra=tuple((file.filename, file.text) for file in self.input_extra or ()),
        )


class CompletionBody(Native):
    prompt: Text | Texts | TokenIds | Annotated[list[TokenIds], Field(fail_fast=True)]

    def generation(self) -> Generation:
        """Raises ApiError."""
        return Generation(**self.options(), prompts=prompts(self.prompt))
