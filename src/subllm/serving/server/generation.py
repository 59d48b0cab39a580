"""What a client asks for, in no dialect's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from subllm.serving.routing.router import Message
from subllm.serving.server.tools import ToolUse
from subllm.serving.server.trimming import UNTRIMMED, Trim

UNBOUNDED = 2**31 - 1
"""As `max_tokens`: as many as the context has room for."""

Prompt = str | tuple[int, ...]
"""Text, in which special tokens may be spelt, or token ids."""


@dataclass(frozen=True)
class Caller:
    """What the HTTP request tells beside its body."""

    session: str | None = None
    language: str | None = None  # header x-subllm-language
    seconds: float | None = None  # header x-subllm-timeout-ms


@dataclass(frozen=True, kw_only=True)
class Draws:
    """How the tokens of a reply are drawn; as in `SamplingParams`."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Mapping[str, float] = field(default_factory=dict)
    seed: int | None = None


USUAL = Draws()


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One request. None stands for what the client left out.

    model        a served name, a base's, or "auto"
    language     of the code, `path` of the file being edited: they choose the model
    prompts      to be continued, unless there are `messages`
    suffix       what follows the one to be written: fill in the middle, even when it is empty
    extra        other files as (path, text) for fill-in-the-middle, the most relevant last; the
                 first are left out where they do not fit the context
    messages     a chat to be answered
    tools        that the answer may call
    form         a JSON schema of the reply
    echo         the prompts are part of the reply, and of `logprobs`
    logprobs     alternatives for each token; None: no log-probabilities
    prediction   what the reply is expected to be like
    seconds      after its first token it ends as it stands
    keep_alive   seconds that the model stays loaded once nobody uses it; math.inf: for ever
    trim         ends it early
    """

    model: str | None = None
    language: str | None = None
    path: str | None = None
    prompts: tuple[Prompt, ...] = ()
    suffix: str | None = None
    extra: tuple[tuple[str, str], ...] = ()
    messages: tuple[Message, ...] = ()
    tools: ToolUse | None = None
    form: Mapping[str, Any] | None = None
    echo: bool = False
    n: int = 1
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    draws: Draws = USUAL
    ignore_eos: bool = False
    logprobs: int | None = None
    prediction: str = ""
    speculation: str | None = None
    seconds: float | None = None
    keep_alive: float | None = None
    trim: Trim = UNTRIMMED
