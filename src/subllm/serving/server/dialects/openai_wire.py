"""The request bodies that are accepted, as the OpenAI API names them.

Defaults that differ from OpenAI's, on purpose: temperature 0 (a local coding server
should answer the same twice), max_tokens from the server's settings (OpenAI's 16 cuts
every real completion), model "auto". Beyond OpenAI: top_k, min_p, repetition_penalty,
stop_token_ids, ignore_eos, language, path (of the file being edited), speculation ("auto",
"off", "ngram" or a model's name), t_max_predict_ms (after its first token a reply ends then,
with finish_reason "length"; 0: no limit), prediction, response_format and max_completion_tokens
on completions too, llama.cpp's n_predict, and Ollama's options and keep_alive. Fields of OpenAI's
that would change the result and are not supported are refused by name. Of no effect, and accepted:
user, metadata, safety_identifier, prompt_cache_key and _options (prefixes are always kept), a
message's name and tool_call_id (results come in the order of the calls), and include_obfuscation of
stream_options. Fields that OpenAI does not document are ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from subllm.serving.routing.router import Message
from subllm.serving.server.dialects.body import (
    Body,
    KeepAlive,
    Predict,
    keep_alive_of,
    prompts,
    stops,
)
from subllm.serving.server.dialects.ollama_wire import Options
from subllm.serving.server.dialects.tools_wire import (
    NamedChoice,
    PastCalls,
    ResponseFormat,
    ToolBodies,
    ToolChoice,
    tool_use,
)
from subllm.serving.server.errors import bad_request
from subllm.serving.server.generation import UNBOUNDED, Draws, Generation
from subllm.serving.server.refusals import refuse
from subllm.serving.server.tools import CallingMessage, ToolUse
from subllm.serving.server.trimming import Trim
from subllm.serving.server.values import (
    Bias,
    Count,
    MaxTokens,
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


class StreamOptions(Wire):
    include_usage: bool | None = None


class TextPart(Wire):
    type: Literal["text"]
    text: Text


Content = Text | Annotated[list[TextPart], Field(fail_fast=True)]


class Prediction(Wire):
    """What the client expects the answer to be like."""

    type: Literal["content"]
    content: Content

    @property
    def text(self) -> str:
        """The parts are pieces of one text."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class Sampling(Body):
    """What both generating routes share."""

    n: Count | None = None
    stop: Text | Texts | None = None
    stop_token_ids: TokenIds | None = None
    max_tokens: MaxTokens | None = None
    max_completion_tokens: MaxTokens | None = None
    n_predict: Predict | None = None
    options: Options | None = None
    keep_alive: KeepAlive | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    min_p: MinP | None = None
    repetition_penalty: Repetition | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Bias] | None = None
    seed: Seed | None = None
    ignore_eos: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    prediction: Prediction | None = None
    t_max_predict_ms: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    response_format: ResponseFormat | None = None
    user: str | None = None

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    def check(self) -> None:
        """Raises ApiError for fields that are not served or cannot go together."""
        refuse(self.model_extra, _UNSUPPORTED, _INSTEAD)
        if self.stream_options is not None and not self.stream:
            raise bad_request("stream_options needs stream: true", "stream_options")

    def request(self) -> dict[str, Any]:
        """The fields of a `Generation` that both routes share. Raises ApiError."""
        given = {
            **self.chosen(),
            "n": self.n or 1,
            "max_tokens": self._max_tokens(),
            "stop": stops(self.stop),
            "stop_token_ids": tuple(self.stop_token_ids or ()),
            "ignore_eos": bool(self.ignore_eos),
            "seconds": self.t_max_predict_ms / 1000 if self.t_max_predict_ms else None,
            "keep_alive": keep_alive_of(self.keep_alive),
            "prediction": self.prediction.text if self.prediction else "",
            "form": self.response_format.form() if self.response_format else None,
            "trim": Trim(warm_up=self._reads_ahead),
        }
        drawn = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "min_p": self.min_p,
            "repetition_penalty": self.repetition_penalty,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "logit_bias": self.logit_bias or {},
            "seed": self.seed,
        }
        options = self.options or Options()
        draws = Draws(**_or(drawn, options.drawn()))
        return {**_or(given, options.chosen()), "draws": draws}

    @property
    def _reads_ahead(self) -> bool:
        """As llama.cpp does, the prompt is computed for the request to come, and nothing else."""
        return (self.max_completion_tokens, self.max_tokens, self.n_predict) == (None, None, 0)

    def _max_tokens(self) -> int | None:
        """The first that is given of four names for it."""
        for limit in (self.max_completion_tokens, self.max_tokens):
            if limit is not None:
                return limit
        if self._reads_ahead:
            return 1
        return UNBOUNDED if self.n_predict is not None and self.n_predict < 0 else self.n_predict


def _or(given: dict[str, Any], native: dict[str, Any]) -> dict[str, Any]:
    """Ollama's word counts where OpenAI's is not said."""
    return {**given, **{name: native[name] for name in native if given[name] in (None, ())}}


class CompletionBody(Sampling):
    prompt: Text | Texts | TokenIds | Annotated[list[TokenIds], Field(fail_fast=True)] | None = None
    suffix: Text | None = None
    best_of: int | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0)] | None = None

    def generation(self) -> Generation:
        """Raises ApiError."""
        self.check()
        given = prompts(self.prompt)
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise bad_request("best_of other than n is not supported; leave it out", "best_of")
        return Generation(
            **self.request(),
            prompts=given,
            suffix=self.suffix or None,
            echo=bool(self.echo),
            logprobs=self.logprobs,
        )


class ChatMessage(Wire):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Content | None = None
    name: str | None = None
    tool_calls: PastCalls | None = None

    def message(self) -> Message:
        refuse(self.model_extra, {"function_call": (), "audio": ()})
        role = "system" if self.role == "developer" else self.role
        content = self.content
        if isinstance(content, list):
            content = "\n".join(part.text for part in content)
        calls = tuple(call.past() for call in self.tool_calls or ())
        return CallingMessage(role, content or "", calls)


class ChatBody(Sampling):
    messages: Annotated[list[ChatMessage], Field(min_length=1, fail_fast=True)]
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0)] | None = None
    tools: ToolBodies | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None

    def tool_use(self) -> ToolUse | None:
        """Raises ApiError."""
        choice, named = self.tool_choice, isinstance(self.tool_choice, NamedChoice)
        return tool_use(
            [tool.tool() for tool in self.tools or ()],
            choice.function.name if isinstance(choice, NamedChoice) else choice,
            named=named,
            parallel=self.parallel_tool_calls is not False,
        )

    def generation(self) -> Generation:
        """Raises ApiError."""
        self.check()
        if self.top_logprobs is not None and not self.logprobs:
            raise bad_request("top_logprobs needs logprobs: true", "top_logprobs")
        return Generation(
            **self.request(),
            messages=tuple(message.message() for message in self.messages),
            tools=self.tool_use(),
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )


# Fields that would change the result, with the values that would not. Tools are a chat's.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "tools": (),
    "tool_choice": ("none", "auto"),
    "functions": (),
    "function_call": ("none", "auto"),
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
    "moderation": (),
    "prompt_cache_retention": ("in_memory", "in-memory"),
    "reasoning_effort": ("none",),
    "service_tier": ("auto", "default"),
    "store": (),
    "verbosity": ("medium",),
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
_INSTEAD = {
    "repeat_penalty": "use repetition_penalty",
    "functions": "use tools",
    "function_call": "use tool_choice",
    "json_schema": "use response_format",
    "guided_json": "use response_format",
}
