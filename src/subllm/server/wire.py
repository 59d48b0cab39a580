"""The request bodies that are accepted, as the OpenAI API names them.

Defaults that differ from OpenAI's, on purpose: temperature 0 (a local coding server
should answer the same twice), max_tokens from the server's settings (OpenAI's 16 cuts
every real completion), model "auto". Beyond OpenAI: top_k, min_p, repetition_penalty,
stop_token_ids, ignore_eos, language, path (of the file being edited), speculation ("auto",
"off", "ngram" or a model's name), t_max_predict_ms (after its first token a reply ends then,
with finish_reason "length"; 0: no limit), and prediction on completions too. Fields that would
change the result and are not supported are refused by name; other unknown fields are
accepted and ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _whole(text: str) -> str:
    """Half a surrogate pair becomes U+FFFD: editors cut text inside an emoji, and JSON can
    carry the half, but nothing can encode it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


Text = Annotated[str, AfterValidator(_whole)]
# fail_fast: a million wrong items are one error, not a million.
TokenIds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(fail_fast=True)]
Texts = Annotated[list[Text], Field(fail_fast=True)]
Penalty = Annotated[float, Field(ge=-2.0, le=2.0, allow_inf_nan=False)]
Bias = Annotated[float, Field(ge=-100.0, le=100.0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
MaxTokens = Annotated[int, Field(ge=0, lt=2**31)]


class _Wire(BaseModel):
    # Strict: "5" or true is not a number. Extra fields are looked at by `unsupported`.
    model_config = ConfigDict(strict=True, extra="allow")


class StreamOptions(_Wire):
    include_usage: bool | None = None


class TextPart(_Wire):
    type: Literal["text"]
    text: Text


Content = Text | Annotated[list[TextPart], Field(fail_fast=True)]


class Prediction(_Wire):
    """What the client expects the answer to be like."""

    type: Literal["content"]
    content: Content

    @property
    def text(self) -> str:
        """The parts are pieces of one text."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class Sampling(_Wire):
    """What both generating routes share."""

    model: Text | None = None
    language: Text | None = Field(default=None, max_length=64)
    path: Text | None = Field(default=None, max_length=1024)
    n: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    stop: Text | Texts | None = None
    stop_token_ids: TokenIds | None = None
    max_tokens: MaxTokens | None = None
    temperature: Annotated[float, Field(ge=0.0, le=2.0, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    min_p: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0.0, le=10.0, allow_inf_nan=False)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Bias] | None = None
    seed: Seed | None = None
    ignore_eos: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    speculation: Annotated[Text, Field(max_length=1024)] | None = None
    prediction: Prediction | None = None
    t_max_predict_ms: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    user: str | None = None


class CompletionBody(Sampling):
    prompt: Text | Texts | TokenIds | Annotated[list[TokenIds], Field(fail_fast=True)] | None = None
    suffix: Text | None = None
    best_of: int | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0)] | None = None


class ChatMessage(_Wire):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Content | None = None
    name: str | None = None


class ChatBody(Sampling):
    messages: Annotated[list[ChatMessage], Field(min_length=1, fail_fast=True)]
    max_completion_tokens: MaxTokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0)] | None = None


# Fields that would change the result, with the values that would not.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "tools": (),
    "functions": (),
    "function_call": ("none", "auto"),
    "tool_choice": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "structured_outputs": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "grammar": (),
    "json_schema": (),
    "audio": (),
    "modalities": (["text"],),
    "web_search_options": (),
    "min_tokens": (),
    "prompt_logprobs": (),
    "truncate_prompt_tokens": (),
    "use_beam_search": (),
    "include_stop_str_in_output": (),
    "allowed_token_ids": (),
    "bad_words": (),
    "typical_p": (1, 1.0),
    "mirostat": (),
    "repeat_penalty": (1, 1.0),
}
_INSTEAD = {"repeat_penalty": "; use repetition_penalty"}


def unsupported(body: Sampling) -> tuple[str, str] | None:
    """The first field (with a message) that asks for something that is not done here.
    null, false, 0 and empty values ask for nothing."""
    for name, value in (body.model_extra or {}).items():
        if name in _UNSUPPORTED and value and value not in _UNSUPPORTED[name]:
            return name, f"{name} is not supported{_INSTEAD.get(name, '; leave it out')}"
    return None
