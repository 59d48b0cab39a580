"""The bodies of Ollama's routes.

`options` honoured: num_predict, temperature, top_k, top_p, min_p, repeat_penalty,
presence_penalty, frequency_penalty, seed, stop. Refused where they would change the result:
typical_p, tfs_z, mirostat. Of no effect, and accepted: num_ctx (the context is the server's, and
a prompt that does not fit is an error), repeat_last_n (penalties look at everything), and how
Ollama is to run a model (num_thread, num_gpu, num_batch, use_mmap, ...). The default temperature
is 0.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from subllm.serving.routing.router import Message
from subllm.serving.server.dialects.body import Body, KeepAlive, Predict, keep_alive_of, stops
from subllm.serving.server.dialects.tools_wire import (
    ANY_OBJECT,
    PastCalls,
    Schema,
    ToolBodies,
    tool_use,
)
from subllm.serving.server.generation import UNBOUNDED, Draws, Generation
from subllm.serving.server.refusals import refuse
from subllm.serving.server.tools import CallingMessage
from subllm.serving.server.values import (
    MinP,
    Penalty,
    Repetition,
    Seed,
    Temperature,
    Text,
    Texts,
    TopK,
    TopP,
    Wire,
)

_REFUSED: dict[str, tuple[Any, ...]] = {
    "images": (),
    "think": (),
    "template": (),
    "context": (),
    "logprobs": (),
    "top_logprobs": (),
}
_REFUSED_OPTIONS: dict[str, tuple[Any, ...]] = {
    "typical_p": (1, 1.0),
    "tfs_z": (1, 1.0),
    "mirostat": (),
}
_INSTEAD = {"think": "these models do not think"}


class Options(Wire):
    num_predict: Predict | None = None
    temperature: Temperature | None = None
    top_k: TopK | None = None
    top_p: TopP | None = None
    min_p: MinP | None = None
    repeat_penalty: Repetition | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    seed: Seed | None = None
    stop: Text | Texts | None = None

    def chosen(self) -> dict[str, Any]:
        """Fields of a `Generation`. Raises ApiError."""
        refuse(self.model_extra, _REFUSED_OPTIONS)
        limit = self.num_predict
        return {
            "max_tokens": UNBOUNDED if limit is not None and limit < 0 else limit,
            "stop": tuple(stop for stop in stops(self.stop) if stop),
        }

    def drawn(self) -> dict[str, Any]:
        """Fields of its `Draws`."""
        return {
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "min_p": self.min_p,
            "repetition_penalty": self.repeat_penalty,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "seed": None if self.seed == -1 else self.seed,
        }


class Named(Body):
    """`name` is the older word for `model`."""

    name: Text | None = None

    @property
    def wanted(self) -> str | None:
        """The model's name here: Ollama's clients write ":latest" where there is no tag."""
        name = self.model or self.name
        if name is None:
            return None
        return name.removesuffix(":latest") or name

    def chosen(self) -> dict[str, Any]:
        return {**super().chosen(), "model": self.wanted}


class _Generating(Named):
    options: Options | None = None
    keep_alive: KeepAlive | None = None
    format: Literal["", "json"] | Schema | None = None
    stream: bool | None = None

    @property
    def loads(self) -> bool:
        """Whether nothing is asked for but to load the model."""
        raise NotImplementedError

    @property
    def unloads(self) -> bool:
        """Or to unload it."""
        return self.loads and keep_alive_of(self.keep_alive) == 0

    @property
    def streams(self) -> bool:
        return self.stream is not False

    def check(self) -> None:
        """Raises ApiError."""
        refuse(self.model_extra, _REFUSED, _INSTEAD)

    def shared(self) -> dict[str, Any]:
        form = ANY_OBJECT if self.format == "json" else self.format or None
        options = self.options or Options()
        return {
            **self.chosen(),
            **options.chosen(),
            "draws": Draws(**options.drawn()),
            "keep_alive": keep_alive_of(self.keep_alive),
            "form": form,
        }


class GenerateBody(_Generating):
    prompt: Text | None = None
    suffix: Text | None = None
    system: Text | None = None
    raw: bool | None = None

    @property
    def loads(self) -> bool:
        return not self.prompt and not self.suffix

    def generation(self) -> Generation:
        """Raises ApiError. Without suffix and `raw` the prompt is a user's message."""
        self.check()
        prompt = self.prompt or ""
        if self.loads:
            shared = {**self.shared(), "max_tokens": 1, "form": None}
            return Generation(**shared, prompts=("",))
        if self.suffix or self.raw:
            return Generation(**self.shared(), prompts=(prompt,), suffix=self.suffix or None)
        system = (Message("system", self.system),) if self.system else ()
        return Generation(**self.shared(), messages=(*system, Message("user", prompt)))


class ChatMessage(Wire):
    """`tool_name` is accepted: results come in the order of the calls."""

    role: Literal["system", "user", "assistant", "tool"]
    content: Text = ""
    tool_calls: PastCalls | None = None

    def message(self) -> CallingMessage:
        calls = tuple(call.past() for call in self.tool_calls or ())
        return CallingMessage(self.role, self.content, calls)


class ChatBody(_Generating):
    messages: Annotated[list[ChatMessage], Field(fail_fast=True)] | None = None
    tools: ToolBodies | None = None

    @property
    def loads(self) -> bool:
        return not self.messages

    def generation(self) -> Generation:
        """Raises ApiError."""
        self.check()
        if self.loads:
            shared = {**self.shared(), "max_tokens": 1, "form": None}
            return Generation(**shared, prompts=("",))
        for message in self.messages or ():
            refuse(message.model_extra, {"images": ()})
        messages = tuple(message.message() for message in self.messages or ())
        tools = tool_use([tool.tool() for tool in self.tools or ()])
        return Generation(**self.shared(), messages=messages, tools=tools)


class PullBody(Named):
    stream: bool | None = None
