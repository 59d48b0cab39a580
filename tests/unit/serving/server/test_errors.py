"""Bad input of every kind gets an OpenAI error object that names what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from subllm.errors import SettingsError, StoreError
from subllm.models.catalog.prompt import PromptSpec
from subllm.models.text.tokenizer import Tokenizer
from subllm.serving.server.config import Limits, ServerConfig
from unit.serving.server.tiny import BASE, CONTEXT, PYTHON, Live, live, manifest, shelf, tokenizer

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
HI = [{"role": "user", "content": "hi"}]


def check(reply: httpx.Response, status: int, param: str | None, code: str | None) -> str:
    """The shape and the fields; returns the message, which is one line."""
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/json"
    body = reply.json()
    assert list(body) == ["error"] and set(body["error"]) == {"message", "type", "param", "code"}
    error = body["error"]
    assert (error["param"], error["code"]) == (param, code), error
    message = error["message"]
    assert isinstance(message, str) and message and "\n" not in message
    assert "Traceback" not in message
    return message


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def _form(schema: dict[str, Any]) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}


INVALID = "invalid_value"
BOTH: list[tuple[dict[str, Any], str, str | None]] = [
    ({"model": 5}, "model", INVALID),
    ({"max_tokens": "5"}, "max_tokens", INVALID),
    ({"max_tokens": -1}, "max_tokens", INVALID),
    ({"max_tokens": 1.5}, "max_tokens", INVALID),
    ({"max_tokens": 2**40}, "max_tokens", INVALID),
    ({"temperature": 2.1}, "temperature", INVALID),
    ({"temperature": "hot"}, "temperature", INVALID),
    ({"top_p": 0}, "top_p", INVALID),
    ({"top_k": -2}, "top_k", INVALID),
    ({"min_p": 1.1}, "min_p", INVALID),
    ({"repetition_penalty": 0}, "repetition_penalty", INVALID),
    ({"presence_penalty": 3}, "presence_penalty", INVALID),
    ({"frequency_penalty": -3}, "frequency_penalty", INVALID),
    ({"n": 0}, "n", INVALID),
    ({"n": True}, "n", INVALID),
    ({"n": 65}, "n", None),
    ({"seed": 2**64}, "seed", INVALID),
    ({"stop": 5}, "stop", INVALID),
    ({"stop": [5]}, "stop", INVALID),
    ({"stop": ""}, "stop", None),
    ({"stop": "x" * 257}, "stop", None),
    ({"stop": ["x"] * 17}, "stop", None),
    ({"stop_token_ids": [-1]}, "stop_token_ids", INVALID),
    ({"logit_bias": {"97": 101}}, "logit_bias", INVALID),
    ({"logit_bias": {"x": 1}}, "logit_bias", None),
    ({"logit_bias": {"999": 1}}, "logit_bias", None),
    ({"logit_bias": {"-1": 1}}, "logit_bias", None),
    ({"logit_bias": {str(i): 1 for i in range(1025)}}, "logit_bias", None),
    ({"stream": "yes"}, "stream", INVALID),
    ({"stream_options": {"include_usage": True}}, "stream_options", None),
    ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options", INVALID),
    ({"ignore_eos": 1}, "ignore_eos", INVALID),
    ({"language": "x" * 65}, "language", INVALID),
    ({"path": "x" * 1025}, "path", INVALID),
    ({"guided_json": {"type": "object"}}, "guided_json", "unsupported_parameter"),
    ({"repeat_penalty": 1.1}, "repeat_penalty", "unsupported_parameter"),
    ({"functions": [{"name": "f"}]}, "functions", "unsupported_parameter"),
    ({"response_format": {"type": "xml"}}, "response_format", INVALID),
    ({"response_format": {"type": "json_schema"}}, "response_format", None),
    (_form({"type": "nothing"}), "response_format", None),
    (_form({"$ref": "http://localhost/x"}), "response_format", None),
    (_form({"type": "object", "minProperties": "x"}), "response_format", None),
    (_form({"type": "string", "enum": ["x" * 2**17]}), "response_format", None),
    ({**_form({"type": "object"}), "ignore_eos": True}, "ignore_eos", None),
    ({"store": True}, "store", "unsupported_parameter"),
    ({"service_tier": "flex"}, "service_tier", "unsupported_parameter"),
    ({"reasoning_effort": "high"}, "reasoning_effort", "unsupported_parameter"),
    ({"verbosity": "low"}, "verbosity", "unsupported_parameter"),
    ({"prompt_cache_retention": "24h"}, "prompt_cache_retention", "unsupported_parameter"),
    ({"moderation": {"model": "x"}}, "moderation", "unsupported_parameter"),
    ({"keep_alive": "soon"}, "keep_alive", INVALID),
    ({"options": {"mirostat": 2}}, "mirostat", "unsupported_parameter"),
    ({"options": 5}, "options", INVALID),
    ({"n_predict": -3}, "n_predict", INVALID),
    ({"max_completion_tokens": "5"}, "max_completion_tokens", INVALID),
]


@pytest.mark.parametrize(("change", "param", "code"), BOTH, ids=lambda value: repr(value)[:40])
def test_fields_of_both_routes(
    shared: Live, change: dict[str, Any], param: str, code: str | None
) -> None:
    for path, body in ((COMPLETIONS, {"prompt": "x"}), (CHAT, {"messages": HI})):
        message = check(shared.post(path, **{"model": PYTHON, **body, **change}), 400, param, code)
        assert param in message or param == "stop"


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "prompt", INVALID),
        ({"prompt": None}, "prompt", INVALID),
        ({"prompt": {"text": "x"}}, "prompt", INVALID),
        ({"prompt": []}, "prompt", INVALID),
        ({"prompt": [[]]}, "prompt", INVALID),
        ({"prompt": ["a", 1]}, "prompt", INVALID),
        ({"prompt": [1, "a"]}, "prompt", INVALID),
        ({"prompt": [[1], "a"]}, "prompt", INVALID),
        ({"prompt": [1.5]}, "prompt", INVALID),
        ({"prompt": [-1]}, "prompt", INVALID),
        ({"prompt": [263]}, "prompt", None),  # the tokenizer has 263 tokens
        ({"prompt": ["x"] * 33, "n": 2}, "n", None),
        ({"prompt": "x", "best_of": 2}, "best_of", None),
        ({"prompt": "x", "best_of": 1, "n": 2}, "best_of", None),
        ({"prompt": "x", "suffix": "y", "echo": True}, "echo", None),
        ({"prompt": [1], "suffix": "y"}, "suffix", None),
        ({"prompt": "x", "suffix": 1}, "suffix", INVALID),
        ({"prompt": "x", "logprobs": 21}, "logprobs", None),
        ({"prompt": "x", "logprobs": True}, "logprobs", INVALID),
        ({"prompt": "x", "logprobs": -1}, "logprobs", INVALID),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_fields_of_completions(
    shared: Live, body: dict[str, Any], param: str, code: str | None
) -> None:
    check(shared.post(COMPLETIONS, model=PYTHON, **body), 400, param, code)


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "messages", INVALID),
        ({"messages": []}, "messages", INVALID),
        ({"messages": "hi"}, "messages", INVALID),
        ({"messages": [{"content": "x"}]}, "messages", INVALID),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages", INVALID),
        ({"messages": [{"role": "user", "content": 5}]}, "messages", INVALID),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages", INVALID),
        ({"messages": HI * 1025}, "messages", None),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}, *HI]},
            "messages",
            INVALID,
        ),
        ({"messages": HI, "tools": [{"type": "function"}]}, "tools", INVALID),
        ({"messages": HI, "tools": [{"type": "web_search"}]}, "tools", INVALID),
        ({"messages": HI, "tools": [TOOL, TOOL]}, "tools", None),
        ({"messages": HI, "tools": [TOOL] * 129}, "tools", INVALID),
        ({"messages": HI, "tool_choice": "required"}, "tool_choice", None),
        ({"messages": HI, "tools": [TOOL], "tool_choice": "always"}, "tool_choice", INVALID),
        (
            {
                "messages": HI,
                "tools": [TOOL],
                "tool_choice": {"type": "function", "function": {"name": "g"}},
            },
            "tool_choice",
            None,
        ),
        ({"messages": HI, "top_logprobs": 2}, "top_logprobs", None),
        ({"messages": HI, "logprobs": True, "top_logprobs": 21}, "top_logprobs", None),
        ({"messages": HI, "logprobs": 2}, "logprobs", INVALID),
        ({"messages": HI, "max_completion_tokens": -1}, "max_completion_tokens", INVALID),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_fields_of_chat(shared: Live, body: dict[str, Any], param: str, code: str | None) -> None:
    check(shared.post(CHAT, model=PYTHON, **body), 400, param, code)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "invalid_body"),
        (b"{", "invalid_json"),
        (b'{"prompt": "x",}', "invalid_json"),
        (b"\xff\xfe", "invalid_json"),
        (b'{"prompt": "\xff"}', "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b"[]", "invalid_body"),
        (b'"x"', "invalid_body"),
        (b"null", "invalid_body"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_bodies_that_are_no_json_object(shared: Live, content: bytes, code: str) -> None:
    headers = {"content-type": "application/json"}
    check(shared.http.post(COMPLETIONS, content=content, headers=headers), 400, None, code)


@pytest.mark.parametrize(
    ("content", "param"),
    [
        (b'{"prompt": "x", "temperature": NaN}', "temperature"),
        (b'{"prompt": "x", "top_p": Infinity}', "top_p"),
        (b'{"prompt": "x", "seed": 1e400}', "seed"),
    ],
)
def test_values_that_json_allows_and_we_do_not(shared: Live, content: bytes, param: str) -> None:
    headers = {"content-type": "application/json"}
    reply = shared.http.post(COMPLETIONS, content=content, headers=headers)
    check(reply, 400, param, INVALID)


def test_half_an_emoji_is_replaced(shared: Live) -> None:
    def prompt_of(path: str, body: bytes) -> str:
        content = body % b"\\ud83d"
        headers = {"content-type": "application/json"}
        reply = shared.http.post(path, content=content, headers=headers)
        assert reply.status_code == 200, reply.text
        request = shared.shelf.engine(PYTHON).requests[-1]
        return tokenizer().decode((*request.prompt, *request.begun))

    rest = b'"model": "' + PYTHON.encode() + b'", "max_tokens": 1'
    assert prompt_of(COMPLETIONS, b'{"prompt": "a%s", ' + rest + b"}") == "a\ufffd"
    assert prompt_of(COMPLETIONS, b'{"prompt": ["%s\\ude00"], ' + rest + b"}") == "😀"
    assert "\ufffd" in prompt_of(COMPLETIONS, b'{"prompt": "a", "suffix": "%s", ' + rest + b"}")
    turns = b'{"messages": [{"role": "user", "content": "%s"}], '
    assert "\ufffd" in prompt_of(CHAT, turns + rest + b"}")


def test_what_asks_for_nothing_is_accepted(shared: Live) -> None:
    body = {
        "tools": [],
        "tool_choice": "none",
        "response_format": {"type": "text"},
        "typical_p": 1.0,
        "user": "me",
        "metadata": {"a": 1},
        "store": False,
        "service_tier": "auto",
        "verbosity": "medium",
        "parallel_tool_calls": True,
        "prompt_cache_key": "x",
        "safety_identifier": "x",
        "keep_alive": "5m",
        "n": None,
        "stop": None,
        "logit_bias": None,
    }
    reply = shared.post(CHAT, model=PYTHON, messages=HI, max_tokens=1, **body)
    assert reply.status_code == 200, reply.text


def test_unknown_models(shared: Live) -> None:
    wrong = f"{BASE}-pyton"
    for path, body in ((COMPLETIONS, {"prompt": "x"}), (CHAT, {"messages": HI})):
        message = check(shared.post(path, model=wrong, **body), 404, "model", "model_not_found")
        assert PYTHON in message
    check(shared.http.get(f"/v1/models/{wrong}"), 404, "model", "model_not_found")
    check(shared.http.get("/v1/models/..%2f..%2fetc"), 404, None, "unknown_url")
    with pytest.raises(openai.NotFoundError) as caught:
        shared.openai.completions.create(model="gpt-4", prompt="x")
    assert caught.value.code == "model_not_found"


def test_what_a_client_wrote_is_echoed_in_short(shared: Live) -> None:
    huge = "m" * 2**20
    for path, body in ((COMPLETIONS, {"prompt": "x"}), (CHAT, {"messages": HI})):
        message = check(shared.post(path, model=huge, **body), 404, "model", "model_not_found")
        assert "mmm...mmm" in message
        assert message.endswith("'subllm list' shows what is served")
        for change in (
            {"logit_bias": {huge: 1}},
            {"logit_bias": {huge: "x"}},
            {"n": 10**4000},
            {"stop": [huge]},
            {"language": huge},
            {"stream_options": {huge: 1}},
        ):
            reply = shared.post(path, model=PYTHON, **body, **change)
            assert reply.status_code == 400
            assert len(reply.content) < 1000
        for reply in (shared.post(path, model=huge, **body), shared.http.get(f"/{huge[:9999]}")):
            assert reply.status_code == 404
            assert len(reply.content) < 1000
    named = shared.http.get(f"/v1/models/{huge[:9999]}")
    assert len(check(named, 404, "model", "model_not_found")) < 300


def test_context_overflow(shared: Live) -> None:
    code = "context_length_exceeded"
    for body in ({"prompt": "x" * CONTEXT}, {"prompt": ["x", [1] * 0 or "y" * 300]}):
        message = check(shared.post(COMPLETIONS, model=PYTHON, **body), 400, None, code)
        assert str(CONTEXT) in message
    long = [{"role": "user", "content": "x" * 300}]
    check(shared.post(CHAT, model=PYTHON, messages=long), 400, None, code)
    # A stream as well: before any event is sent.
    check(shared.post(COMPLETIONS, model=PYTHON, prompt="x" * 300, stream=True), 400, None, code)
    fits = shared.post(COMPLETIONS, model=PYTHON, prompt="x" * (CONTEXT - 1), ignore_eos=True)
    assert fits.json()["usage"]["completion_tokens"] == 1
    assert fits.json()["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("stream", [False, True])
def test_a_text_that_is_far_too_long_is_not_encoded(
    shared: Live, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    encoded: list[int] = []

    def counted(self: Tokenizer, text: str, **more: Any) -> list[int]:
        encoded.append(len(text))
        return original(self, text, **more)

    original = Tokenizer.encode
    monkeypatch.setattr(Tokenizer, "encode", counted)
    huge = "x" * 3_000_000
    for body in (
        {"prompt": huge},
        {"prompt": ["x", huge]},
        {"prompt": "x", "suffix": huge},
        {"messages": [{"role": "user", "content": "x"}, {"role": "user", "content": huge}]},
    ):
        path = CHAT if "messages" in body else COMPLETIONS
        reply = shared.post(path, model=PYTHON, stream=stream, **body)
        message = check(reply, 400, None, "context_length_exceeded")
        assert str(CONTEXT) in message and "many more" in message
    assert sum(encoded) < 100_000
    prediction = {"type": "content", "content": huge}
    reply = shared.post(COMPLETIONS, model=PYTHON, prompt="x", max_tokens=1, prediction=prediction)
    assert reply.status_code == 200


def test_limits_of_time(shared: Live) -> None:
    header = {"x-subllm-timeout-ms": "1"}
    body = {"model": PYTHON, "prompt": "x", "max_tokens": 200, "ignore_eos": True}
    reply = shared.http.post(COMPLETIONS, json=body, headers=header)
    assert reply.status_code == 200
    assert reply.json()["choices"][0]["finish_reason"] == "length"
    assert reply.json()["usage"]["completion_tokens"] < 200
    reply = shared.post(COMPLETIONS, **body, t_max_predict_ms=1)
    assert 1 <= reply.json()["usage"]["completion_tokens"] < 200
    for wrong in ("0", "-1", "1.5", "", "soon", "9" * 30):
        reply = shared.http.post(COMPLETIONS, json=body, headers={"x-subllm-timeout-ms": wrong})
        check(reply, 400, "x-subllm-timeout-ms", None)
    check(
        shared.post(COMPLETIONS, **body, t_max_predict_ms=-1),
        400,
        "t_max_predict_ms",
        "invalid_value",
    )


def test_paths_and_methods(shared: Live) -> None:
    check(shared.http.get("/nothing"), 404, None, "unknown_url")
    check(shared.post("/v1/embeddings", input="x"), 404, None, "unsupported")
    reply = shared.http.get(COMPLETIONS)
    check(reply, 405, None, "method_not_allowed")
    assert reply.headers["allow"] == "POST"
    check(shared.post("/v1/models", a=1), 405, None, "method_not_allowed")


@pytest.fixture(scope="module")
def small() -> Iterator[Live]:
    """A server with a small body limit, an engine of a smaller context than its model's,
    a model without extras and a damaged one."""
    things = shelf(context_length=64)
    plain = f"{BASE}-math"
    things.manifests[plain] = manifest(plain, "math", prompt=PromptSpec(context_length=256))
    things.manifests[f"{BASE}-sql"] = StoreError("manifest is missing; run 'subllm verify'")
    with live(things, limits=Limits(body_bytes=2000)) as running:
        yield running


def test_bodies_that_are_too_large(small: Live) -> None:
    check(small.post(COMPLETIONS, prompt="x" * 3000), 413, None, "body_too_large")
    # Without a length, piece by piece.
    pieces = (json.dumps({"prompt": "x" * 900}).encode() for _ in range(4))
    headers = {"content-type": "application/json"}
    check(
        small.http.post(COMPLETIONS, content=pieces, headers=headers), 413, None, "body_too_large"
    )
    # Far too large: the answer still arrives, though not all of it is read.
    raw = httpx.Client(base_url=small.url)
    check(raw.post(COMPLETIONS, json={"prompt": "x" * 15_000}), 413, None, "body_too_large")
    assert small.post(COMPLETIONS, model=PYTHON, prompt="x" * 20).status_code == 200


def test_an_engine_with_a_smaller_context(small: Live) -> None:
    for stream in (False, True):
        reply = small.post(COMPLETIONS, model=PYTHON, prompt="x" * 64, stream=stream)
        message = check(reply, 400, None, "context_length_exceeded")
        assert "64" in message
    scored = {"echo": True, "logprobs": 1, "max_tokens": 0}
    reply = small.post(COMPLETIONS, model=PYTHON, prompt="x" * 65, **scored)
    check(reply, 400, None, "context_length_exceeded")


def test_models_without_markers(small: Live) -> None:
    reply = small.post(COMPLETIONS, model=f"{BASE}-math", prompt="x", suffix="y")
    assert f"{BASE}-math" in check(reply, 400, "suffix", None)


def test_a_damaged_model_does_not_stop_the_others(small: Live) -> None:
    entries = small.http.get("/v1/models").json()["data"]
    assert {e["id"]: e["context_length"] for e in entries}["auto"] == 256
    names = [entry["id"] for entry in entries]
    assert PYTHON in names and f"{BASE}-sql" not in names
    assert small.post(COMPLETIONS, language="sql", prompt="x", max_tokens=1).status_code == 200


def test_no_models_at_all() -> None:
    things = shelf()
    things.manifests.clear()
    with live(things) as server:
        assert [m["id"] for m in server.http.get("/v1/models").json()["data"]] == ["auto"]
        message = check(server.post(COMPLETIONS, prompt="x"), 404, "model", "model_not_found")
        assert "subllm extract" in message


@pytest.mark.parametrize(
    "options",
    [
        {"host": "0.0.0.0"},
        {"host": "192.168.1.5"},
        {"host": "example.org"},
        {"host": "::"},
        {"api_key": " "},
        {"port": 70000},
        {"max_engines": 0},
        {"max_queue": 0},
    ],
)
def test_configurations_that_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        ServerConfig(**options)
    ServerConfig(host="0.0.0.0", api_key="k")
    ServerConfig(host="::1")
