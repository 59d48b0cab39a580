"""Replies in a form that was asked for, and calls of tools, through the clients of each dialect.

The models are random: nothing but the constraint makes them write JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import anthropic
import ollama
import openai
import pydantic
import pytest

from subllm.serving.server.tools import BEGIN
from unit.serving.server.tiny import PYTHON, Live, family, live

HI: list[Any] = [{"role": "user", "content": "hi"}]


class Shape(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True)
    name: Literal["a", "bc"]
    size: Literal[1, 20, 300]
    flags: list[bool] = pydantic.Field(max_length=2)


SCHEMA = Shape.model_json_schema()
ROOMY: dict[str, Any] = {"model": PYTHON, "max_tokens": 150, "temperature": 1.0}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "shape", "description": "x", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "now"}},
]


@pytest.fixture(scope="module")
def native() -> Iterator[Live]:
    with live(family()) as running:
        yield running


def checked(text: str | None) -> Shape:
    return Shape.model_validate_json(text or "")


def test_replies_have_the_form(shared: Live, native: Live) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "shape", "schema": SCHEMA}}
    for server in (shared, native):
        texts = set()
        for seed in range(4):
            reply = server.openai.chat.completions.create(
                messages=HI, response_format=form, seed=seed, n=2, **ROOMY
            )
            for choice in reply.choices:
                assert choice.finish_reason == "stop"
                checked(choice.message.content)
                texts.add(choice.message.content)
        assert len(texts) > 1  # drawn, not always the same
        greedy = {**ROOMY, "temperature": 0.0}
        once, again = (
            server.openai.chat.completions.create(messages=HI, response_format=form, **greedy)
            for _ in range(2)
        )
        assert checked(once.choices[0].message.content) == checked(again.choices[0].message.content)


def test_openais_client_parses(shared: Live) -> None:
    reply = shared.openai.chat.completions.parse(messages=HI, response_format=Shape, **ROOMY)
    assert reply.choices[0].message.parsed == checked(reply.choices[0].message.content)
    response = shared.openai.responses.parse(
        model=PYTHON, input="hi", text_format=Shape, max_output_tokens=150
    )
    assert response.output_parsed == checked(response.output_text)


def test_other_dialects_have_forms(shared: Live) -> None:
    body = {"prompt": "x", "n_predict": 150, "json_schema": SCHEMA, "model": PYTHON}
    checked(shared.post("/completion", **body).json()["content"])
    form = {"type": "json_schema", "json_schema": {"schema": SCHEMA}}
    body = {"prompt": "x", "max_tokens": 150, "response_format": form, "model": PYTHON}
    checked(shared.post("/v1/completions", **body).json()["choices"][0]["text"])
    client = ollama.Client(shared.url)
    few = {"num_predict": 150}
    checked(client.generate(PYTHON, "x", format=SCHEMA, options=few).response)
    checked(client.chat(PYTHON, HI, format=SCHEMA, options=few).message.content)
    text = client.generate(PYTHON, "x", format="json", options=few).response
    assert text.startswith("{")
    said = shared.post(
        "/v1/messages",
        model=PYTHON,
        max_tokens=150,
        messages=HI,
        output_config={"format": {"type": "json_schema", "schema": SCHEMA}},
    )
    checked(said.json()["content"][0]["text"])


def test_nothing_is_drafted_for_a_form(native: Live) -> None:
    """A prediction is no use there, and must not change what comes out."""
    form: Any = {"type": "json_schema", "json_schema": {"name": "shape", "schema": SCHEMA}}
    asked = {**ROOMY, "temperature": 0.0, "messages": HI, "response_format": form}
    plain = native.openai.chat.completions.create(**asked)
    text = plain.choices[0].message.content
    guess = {"type": "content", "content": text}
    guided = native.openai.chat.completions.create(**asked, prediction=guess)
    assert guided.choices[0].message.content == text
    details = guided.usage.completion_tokens_details
    assert (details.accepted_prediction_tokens, details.rejected_prediction_tokens) == (0, 0)


def test_a_form_beside_other_requests_changes_neither(native: Live) -> None:
    """Masks are of single draws of a step."""
    plain = {"model": PYTHON, "prompt": "abc", "max_tokens": 40}
    alone = native.openai.completions.create(**plain).choices[0].text
    form: Any = {"type": "json_schema", "json_schema": {"name": "shape", "schema": SCHEMA}}
    stream = native.openai.chat.completions.create(
        messages=HI, response_format=form, stream=True, **ROOMY
    )
    first = next(stream)
    assert native.openai.completions.create(**plain).choices[0].text == alone
    rest = [piece.choices[0].delta.content or "" for piece in stream if piece.choices]
    checked((first.choices[0].delta.content or "") + "".join(rest))


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "shape"}}], ids=str
)
def test_calls_that_are_required(shared: Live, choice: Any) -> None:
    for seed in range(3):
        asked: dict[str, Any] = {
            **ROOMY,
            "messages": HI,
            "tools": TOOLS,
            "tool_choice": choice,
            "parallel_tool_calls": False,
            "seed": seed,
        }
        whole = shared.openai.chat.completions.create(**asked).choices[0]
        assert whole.finish_reason == "tool_calls" and whole.message.content is None
        assert whole.message.tool_calls is not None
        call = whole.message.tool_calls[0].function
        if call.name == "shape":
            checked(call.arguments)
        else:
            assert choice == "required" and (call.name, call.arguments) == ("now", "{}")
        with shared.openai.chat.completions.stream(**asked) as stream:
            final = stream.get_final_completion().choices[0]
        assert final.finish_reason == "tool_calls" and final.message.tool_calls is not None
        streamed = final.message.tool_calls[0]
        assert (streamed.function.name, streamed.function.arguments) == (call.name, call.arguments)
        assert streamed.id != whole.message.tool_calls[0].id


def test_tools_are_told_and_calls_are_remembered(shared: Live) -> None:
    past = {
        "role": "assistant",
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "shape", "arguments": '{"name": "<|end|>"}'},
            }
        ],
    }
    result = {"role": "tool", "tool_call_id": "call_1", "content": "done"}
    shared.openai.chat.completions.create(
        model=PYTHON, max_tokens=1, messages=[*HI, past, result], tools=TOOLS[1:]
    )
    prompt = bytes(shared.shelf.engine(PYTHON).requests[-1].prompt).decode()  # no special token
    assert prompt.startswith("[tool now][user]hi\n[assistant]<tool_call>")
    assert '"arguments": {"name": "<|end|>"}' in prompt and "[tool]done" in prompt
    shared.openai.chat.completions.create(
        model=PYTHON, max_tokens=1, messages=HI, tools=TOOLS, tool_choice="none"
    )
    assert bytes(shared.shelf.engine(PYTHON).requests[-1].prompt) == b"[user]hi\n[assistant]"


def test_text_is_free_where_calls_are_not_required(shared: Live) -> None:
    asked: dict[str, Any] = {**ROOMY, "messages": HI, "tools": TOOLS, "max_tokens": 20}
    reply = shared.openai.chat.completions.create(**asked, seed=1).choices[0]
    assert reply.finish_reason == "length" and not reply.message.tool_calls
    assert reply.message.content and BEGIN not in reply.message.content
    pieces = shared.openai.chat.completions.create(**asked, seed=1, stream=True)
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
    assert text == reply.message.content


def test_ollamas_calls(shared: Live) -> None:
    """Its models decide for themselves; here only the form of JSON is left, which is a call."""
    schema = {
        "type": "object",
        "properties": {"name": {"const": "shape"}, "arguments": SCHEMA},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }
    client = ollama.Client(shared.url)
    asked: dict[str, Any] = {
        "model": PYTHON,
        "messages": HI,
        "tools": TOOLS[:1],
        "format": schema,
        "options": {"num_predict": 180, "temperature": 0.0},
    }
    whole = client.chat(**asked)
    assert whole.message.tool_calls and not whole.message.content
    call = whole.message.tool_calls[0].function
    Shape.model_validate(call.arguments)
    pieces = list(client.chat(**asked, stream=True))
    streamed = [c for piece in pieces for c in piece.message.tool_calls or ()]
    assert [c.function.arguments for c in streamed] == [call.arguments]


def test_anthropics_calls(shared: Live) -> None:
    client = anthropic.Anthropic(base_url=shared.url, api_key="none", max_retries=0)
    asked: dict[str, Any] = {
        "model": PYTHON,
        "max_tokens": 150,
        "messages": HI,
        "tools": [{"name": "shape", "description": "x", "input_schema": SCHEMA}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
    }
    whole = client.messages.create(**asked)
    assert whole.stop_reason == "tool_use"
    (block,) = whole.content
    assert block.type == "tool_use" and block.name == "shape"
    Shape.model_validate(block.input)
    with client.messages.stream(**asked) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 1
    assert [b.input for b in final.content if b.type == "tool_use"] == [block.input]
    turns = [
        *HI,
        {"role": "assistant", "content": [block.model_dump()]},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": block.id, "content": "done"}],
        },
    ]
    counted = client.messages.count_tokens(model=PYTHON, messages=turns, tools=asked["tools"])
    assert counted.input_tokens > 0
    free = client.messages.create(**{**asked, "tool_choice": {"type": "auto"}, "max_tokens": 5})
    assert free.stop_reason == "max_tokens" and free.content[0].type == "text"


def called(reply: Any) -> list[Any]:
    return [item for item in reply.output if item.type == "function_call"]


FLAT: list[Any] = [{"type": "function", **tool["function"]} for tool in TOOLS]


def test_responses_calls(shared: Live) -> None:
    asked: dict[str, Any] = {
        "model": PYTHON,
        "input": "hi",
        "max_output_tokens": 150,
        "tools": [openai.pydantic_function_tool(Shape, name="shape")],
        "tool_choice": {"type": "function", "name": "shape"},
    }
    whole = shared.openai.responses.parse(**asked)
    assert whole.status == "completed" and whole.output_text == ""
    (call,) = called(whole)
    assert call.status == "completed" and call.parsed_arguments == checked(call.arguments)
    assert whole.tool_choice.model_dump() == asked["tool_choice"]
    with shared.openai.responses.stream(**asked) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    (streamed,) = called(final)
    assert (streamed.name, streamed.arguments) == ("shape", call.arguments)
    kinds = [event.type for event in events]
    delta = "response.function_call_arguments.delta"
    assert [kind for kind in kinds if kind != delta] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    pieces = [event.delta for event in events if event.type == delta]
    assert "".join(pieces) == call.arguments and len(pieces) > 1
    done = events[kinds.index("response.function_call_arguments.done")]
    assert (done.arguments, done.item_id) == (call.arguments, streamed.id)


def test_responses_remember_calls(shared: Live) -> None:
    said: Any = [
        *HI,
        {
            "type": "function_call",
            "call_id": "call_1",
            "name": "shape",
            "arguments": '{"name": "<|end|>"}',
        },
        {"type": "function_call_output", "call_id": "call_1", "output": "done"},
    ]
    shared.openai.responses.create(model=PYTHON, max_output_tokens=1, input=said, tools=FLAT[1:])
    prompt = bytes(shared.shelf.engine(PYTHON).requests[-1].prompt).decode()  # no special token
    assert prompt.startswith("[tool now][user]hi\n[assistant]<tool_call>")
    assert '"arguments": {"name": "<|end|>"}' in prompt and prompt.endswith(
        "[tool]done\n[assistant]"
    )


def test_responses_text_is_free_where_calls_are_not_required(shared: Live) -> None:
    asked: dict[str, Any] = {"model": PYTHON, "input": "hi", "max_output_tokens": 20, "tools": FLAT}
    whole = shared.openai.responses.create(**asked)
    assert whole.status == "incomplete" and whole.output_text and not called(whole)
    events = list(shared.openai.responses.create(**asked, stream=True))
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert text == whole.output_text
    none = shared.openai.responses.create(**asked, tool_choice="none")
    assert none.output_text and bytes(shared.shelf.engine(PYTHON).requests[-1].prompt) == (
        b"[user]hi\n[assistant]"
    )


def test_a_call_that_is_cut_says_so(shared: Live) -> None:
    asked: dict[str, Any] = {"model": PYTHON, "input": "hi", "tools": FLAT, "max_output_tokens": 50}
    reply = shared.openai.responses.create(
        **asked, tool_choice={"type": "function", "name": "shape"}
    )
    (call,) = called(reply)
    assert reply.status == call.status == "incomplete"
    assert reply.incomplete_details and reply.incomplete_details.reason == "max_output_tokens"


def test_a_streamed_response_has_the_form(shared: Live) -> None:
    with shared.openai.responses.stream(
        model=PYTHON, input="hi", text_format=Shape, max_output_tokens=150
    ) as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    assert final.output_parsed == checked(final.output_text)


def test_too_few_tokens_cut_the_form(shared: Live) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "shape", "schema": SCHEMA}}
    asked = {**ROOMY, "max_tokens": 5, "messages": HI, "response_format": form}
    reply = shared.openai.chat.completions.create(**asked)
    assert reply.choices[0].finish_reason == "length"
