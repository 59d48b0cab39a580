"""/v1/completions and /v1/chat/completions through the official client."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import openai
import pytest

from subllm.engine.request import SamplingParams
from unit.serving.server.tiny import (
    BASE,
    CONTEXT,
    CPP,
    END,
    JAVA,
    MID,
    PRE,
    PYTHON,
    SEP,
    SUF,
    Engine,
    Live,
    live,
    shelf,
)

NONE: Any = openai.NOT_GIVEN


def complete(live: Live, prompt: Any = "def f(x):\n    ", **options: Any) -> Any:
    options = {"model": PYTHON, "max_tokens": 8, "extra_body": {"ignore_eos": True}, **options}
    return live.openai.completions.create(prompt=prompt, **options)


def chat(live: Live, text: str = "hello", **options: Any) -> Any:
    options = {"model": PYTHON, "max_tokens": 8, "extra_body": {"ignore_eos": True}, **options}
    messages = options.pop("messages", [{"role": "user", "content": text}])
    return live.openai.chat.completions.create(messages=messages, **options)


def asked(live: Live, name: str = PYTHON) -> tuple[tuple[int, ...], SamplingParams]:
    """What the engine was given last."""
    request = live.shelf.engine(name).requests[-1]
    return request.prompt, request.params


def reference(name: str, prompt: bytes, count: int) -> str:
    """Greedy text of the same weights, by scoring: no scheduler, no cache, no server."""
    engine = Engine(name)
    ids = list(prompt)
    for _ in range(count):
        last = engine.score((*ids, 0), top=1)[-1]
        assert last is not None
        ids.append(last.top[0][0])
    engine.close()
    written = [token for token in ids[len(prompt) :] if token < END]
    return bytes(written).decode(errors="replace")


def test_models(shared: Live) -> None:
    ids = [model.id for model in shared.openai.models.list()]
    assert ids == [*sorted([BASE, PYTHON, JAVA, CPP]), "auto"]
    assert shared.openai.models.retrieve(JAVA).id == JAVA
    assert shared.openai.models.retrieve("auto").object == "model"


def test_greedy_text_usage_and_route(shared: Live) -> None:
    prompt = "def f(x):\n    "
    raw = shared.openai.completions.with_raw_response.create(
        model=BASE, prompt=prompt, max_tokens=8, extra_body={"ignore_eos": True}
    )
    reply = raw.parse()
    assert reply.choices[0].text == reference(PYTHON, prompt.encode(), 8)
    assert (reply.model, reply.object) == (PYTHON, "text_completion")
    assert raw.headers["x-subllm-route"] == "content"
    assert raw.headers["x-subllm-model"] == PYTHON
    assert reply.choices[0].finish_reason == "length"
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (14, 8)
    assert reply.usage.total_tokens == 22
    again = complete(shared, prompt)
    assert again.choices[0].text == reply.choices[0].text and again.id != reply.id


def test_a_chat_is_read_ahead() -> None:
    """As llama.cpp's clients do, before the question that they are about to ask."""
    with live(shelf()) as server:
        messages = [{"role": "user", "content": "y" * 100}]
        body = {"model": PYTHON, "messages": messages}
        ahead = server.post("/v1/chat/completions", **body, n_predict=0).json()
        assert ahead["choices"][0]["message"]["content"] == ""
        assert ahead["usage"]["completion_tokens"] == 0
        reply = server.post("/v1/chat/completions", **body, max_tokens=2).json()
        assert reply["usage"]["prompt_tokens_details"]["cached_tokens"] > 90


def test_each_sub_model_answers_for_itself(shared: Live) -> None:
    texts = {name: complete(shared, "x", model=name).choices[0].text for name in (PYTHON, JAVA)}
    assert texts == {name: reference(name, b"x", 8) for name in (PYTHON, JAVA)}


@pytest.mark.parametrize(
    ("body", "headers", "model", "reason"),
    [
        ({"language": "c++"}, {}, CPP, "language"),
        ({}, {"x-subllm-language": "Java"}, JAVA, "language"),
        ({"language": "cpp"}, {"x-subllm-language": "java"}, CPP, "language"),
        ({"path": "src/a.hpp"}, {}, CPP, "path"),
        ({"prompt": "<|file_sep|>A.java\nint x"}, {}, JAVA, "path"),
        ({"prompt": "x", "suffix": "\n#include <map>\n"}, {}, CPP, "content"),
        ({"model": JAVA, "language": "cpp"}, {}, JAVA, "model"),
        ({"language": "rust"}, {}, None, "fallback"),
    ],
)
def test_routes(
    shared: Live, body: dict[str, Any], headers: dict[str, str], model: str | None, reason: str
) -> None:
    body = {"prompt": "x", "max_tokens": 1, **body}
    headers = {**headers, "user-agent": f"{body}"}  # a session of its own
    reply = shared.http.post("/v1/completions", json=body, headers=headers)
    assert reply.status_code == 200, reply.text
    assert reply.headers["x-subllm-route"] == reason
    assert reply.json()["model"] == reply.headers["x-subllm-model"]
    assert model in (None, reply.json()["model"])


def test_a_session_keeps_its_language(shared: Live) -> None:
    def post(agent: str, **body: Any) -> tuple[str, str]:
        body = {"prompt": "x", "max_tokens": 1, **body}
        reply = shared.http.post("/v1/completions", json=body, headers={"user-agent": agent})
        return reply.json()["model"], reply.headers["x-subllm-route"]

    post("editor-1", language="java")
    post("editor-2", language="cpp")
    assert post("editor-1") == (JAVA, "session")
    assert post("editor-2") == (CPP, "session")


def test_prompts_as_text_list_ids_and_lists_of_ids(shared: Live) -> None:
    one = complete(shared, "abc").choices[0].text
    two = complete(shared, "xyz").choices[0].text
    assert complete(shared, [97, 98, 99]).choices[0].text == one
    for prompts in (["abc", "xyz"], [[97, 98, 99], list(b"xyz")]):
        reply = complete(shared, prompts)
        assert [(c.index, c.text) for c in reply.choices] == [(0, one), (1, two)]
        assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (6, 16)
    assert complete(shared, "").usage.prompt_tokens == 1  # starts from the end token
    assert asked(shared)[0] == (END,)


def test_n_choices_of_each_prompt_in_order(shared: Live) -> None:
    options: dict[str, Any] = {"n": 3, "temperature": 1.5, "seed": 100, "best_of": 3}
    reply = complete(shared, ["abc", "xyz"], **options)
    assert [choice.index for choice in reply.choices] == list(range(6))
    assert len({choice.text for choice in reply.choices}) == 6
    assert reply.usage.completion_tokens == 48
    assert [c.text for c in complete(shared, ["abc", "xyz"], **options).choices] == [
        c.text for c in reply.choices
    ]
    # Choice i of a prompt is what seed + i gives alone.
    alone = complete(shared, "abc", temperature=1.5, seed=102).choices[0].text
    assert alone == reply.choices[2].text


def test_fill_in_the_middle(shared: Live) -> None:
    complete(shared, "e\nx = ab", suffix="cd")  # the word at the cursor is the model's to begin
    assert asked(shared)[0] == (PRE, SUF, *b"cd", MID, *b"e\nx =")
    assert shared.shelf.engine(PYTHON).requests[-1].begun == tuple(b" ab")
    complete(shared, "<|mid|>\n", suffix="<|mid|>")  # a marker in the user's text is text
    assert asked(shared)[0] == (PRE, SUF, *b"<|mid|>", MID, *b"<|mid|>\n")
    complete(
        shared, "<|pre|>e\nx = ab<|suf|>cd<|mid|>"
    )  # an editor's own prompt is laid out so too
    assert asked(shared)[0] == (PRE, SUF, *b"cd", MID, *b"e\nx =")
    assert shared.shelf.engine(PYTHON).requests[-1].begun == tuple(b" ab")
    # Log-probabilities are those of what follows the cursor.
    complete(shared, "ab", suffix="cd", logprobs=1)
    assert asked(shared)[0] == (PRE, *b"ab", SUF, *b"cd", MID)
    assert shared.shelf.engine(PYTHON).requests[-1].begun == ()
    complete(shared, "ab", suffix="")
    assert asked(shared)[0] == tuple(b"ab")
    # An editor's own prompt: there the markers are markers.
    complete(shared, "<|sep|>a.py\n<|pre|>ab<|suf|>cd<|mid|>")
    assert asked(shared)[0] == (SEP, *b"a.py\n", PRE, *b"ab", SUF, *b"cd", MID)


def test_stops(shared: Live) -> None:
    def written(**options: Any) -> tuple[str, str]:
        choice = complete(shared, seed=9, **options).choices[0]
        return choice.text, choice.finish_reason

    assert written() == ("abcdefgh", "length")
    assert written(stop="de") == ("abc", "stop")
    assert written(stop=["zz", "ef"]) == ("abcd", "stop")
    assert written(stop=["abcdefghi"]) == ("abcdefgh", "length")
    assert written(extra_body={"stop_token_ids": [ord("c")]}) == ("ab", "stop")
    assert complete(shared, seed=10, max_tokens=3).choices[0].text == "ab"  # no marker shows
    assert complete(shared, seed=10, max_tokens=3, stop="<|fill|>").choices[0].text == "a"


def test_the_end_token_and_ignoring_it(shared: Live) -> None:
    ended = complete(shared, seed=8, max_tokens=4, extra_body={}).choices[0]
    assert (ended.text, ended.finish_reason) == ("abc", "stop")
    on = complete(shared, seed=8, max_tokens=4, extra_body={"ignore_eos": True}).choices[0]
    assert (on.text, on.finish_reason) == ("abc", "length")


def test_all_parameters_reach_the_engine(shared: Live) -> None:
    complete(
        shared,
        temperature=0.5,
        top_p=0.25,
        presence_penalty=1.0,
        frequency_penalty=-1.5,
        logit_bias={"97": 3},
        seed=3,
        stop="q",
        logprobs=2,
        max_tokens=4,
        extra_body={"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.2, "stop_token_ids": [5]},
    )
    assert asked(shared)[1] == SamplingParams(
        temperature=0.5,
        top_k=5,
        top_p=0.25,
        min_p=0.1,
        repetition_penalty=1.2,
        presence_penalty=1.0,
        frequency_penalty=-1.5,
        logit_bias=((97, 3.0),),
        seed=3,
        max_tokens=4,
        stop=("q",),
        stop_token_ids=(5,),
        logprobs=2,
    )
    complete(shared, temperature=NONE, max_tokens=NONE)
    assert asked(shared)[1].temperature == 0.0
    # The default of 256 is lowered to what the context leaves.
    assert asked(shared)[1].max_tokens == CONTEXT - 14


def test_logprobs_of_completions(shared: Live) -> None:
    choice = complete(shared, "abc", seed=7, max_tokens=11, logprobs=2).choices[0]
    lists = choice.logprobs
    assert choice.text == "aé€😀."
    assert lists.tokens == [
        "a",
        *(f"bytes:\\x{byte:02x}" for byte in "é€😀".encode()),
        ".",
    ]
    # The characters before each token.
    assert lists.text_offset == [0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4]
    for token, logprob, top in zip(
        lists.tokens, lists.token_logprobs, lists.top_logprobs, strict=True
    ):
        assert logprob <= 0 and top[token] == logprob and 2 <= len(top) <= 3


def test_echo_with_logprobs_scores_the_prompt(shared: Live) -> None:
    reply = complete(shared, "abcd", max_tokens=2, echo=True, logprobs=1, n=2)
    engine = Engine(PYTHON)
    expected = [entry and entry.logprob for entry in engine.score(tuple(b"abcd"))]
    for choice in reply.choices:
        lists = choice.logprobs
        assert choice.text.startswith("abcd") and lists.tokens[:4] == list("abcd")
        assert lists.text_offset[:5] == [0, 1, 2, 3, 4] and len(lists.tokens) == 6
        assert lists.token_logprobs[0] is None
        np.testing.assert_allclose(
            np.array(lists.token_logprobs[1:4], float), np.array(expected[1:], float), rtol=1e-4
        )
    scored = complete(shared, "abcd", max_tokens=0, echo=True, logprobs=0).choices[0]
    assert scored.text == "abcd" and len(scored.logprobs.tokens) == 4
    assert complete(shared, list(b"abcd"), max_tokens=0, echo=True).choices[0].text == "abcd"
    assert complete(shared, "ab", max_tokens=0).usage.completion_tokens == 0


def test_chat(shared: Live) -> None:
    reply = chat(
        shared,
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        ],
        seed=9,
    )
    prompt = "[system]Be brief.\n[user]hi\n[assistant]"
    assert bytes(asked(shared)[0]).decode() == prompt
    choice = reply.choices[0]
    assert (choice.message.role, choice.message.content) == ("assistant", "abcdefgh")
    assert (choice.finish_reason, choice.logprobs) == ("length", None)
    assert reply.object == "chat.completion" and reply.usage.prompt_tokens == len(prompt)


def test_markers_in_messages_are_text(shared: Live) -> None:
    chat(shared, "<|mid|>")
    assert asked(shared)[0] == tuple(b"[user]<|mid|>\n[assistant]")


def test_chat_max_tokens_and_logprobs(shared: Live) -> None:
    reply = chat(
        shared, seed=7, max_tokens=9, max_completion_tokens=3, logprobs=True, top_logprobs=2
    )
    entries = reply.choices[0].logprobs.content
    assert [entry.token for entry in entries] == ["a", "bytes:\\xc3", "bytes:\\xa9"]
    assert [entry.bytes for entry in entries] == [[97], [0xC3], [0xA9]]
    for entry in entries:
        assert entry.logprob <= 0 and len(entry.top_logprobs) == 2
        assert entry.top_logprobs[0].logprob >= entry.top_logprobs[1].logprob
    assert math.isfinite(entries[0].logprob)
    plain = chat(shared, logprobs=True).choices[0].logprobs.content
    assert plain[0].top_logprobs == []


def test_chat_is_routed_by_its_messages(shared: Live) -> None:
    assert chat(shared, "Write it in C++, please", model="auto", max_tokens=1).model == CPP
    assert chat(shared, "```java\nx\n```", model=BASE, max_tokens=1).model == JAVA


@pytest.mark.parametrize("usage", [False, True])
def test_streams_say_what_whole_replies_say(shared: Live, usage: bool) -> None:
    extra: dict[str, Any] = {"stream": True}
    if usage:
        extra["stream_options"] = {"include_usage": True}
    options: dict[str, Any] = {"seed": 5, "temperature": 1.2, "n": 2, "max_tokens": 12}
    whole, pieces = complete(shared, **options), list(complete(shared, **options, **extra))
    last = pieces.pop() if usage else None
    texts = ["", ""]
    ends: list[list[Any]] = [[], []]
    for chunk in pieces:
        (choice,) = chunk.choices
        texts[choice.index] += choice.text
        ends[choice.index].append(choice.finish_reason)
        assert chunk.model == PYTHON and chunk.id == pieces[0].id
    assert texts == [choice.text for choice in whole.choices]
    assert all(end == [None] * (len(end) - 1) + ["length"] for end in ends)
    if last is not None:
        assert last.choices == [] and last.usage == whole.usage


def test_chat_stream(shared: Live) -> None:
    stream = chat(
        shared, seed=7, max_tokens=11, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = stream
    assert chunks[0].choices[0].delta.role == "assistant"
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert [piece for piece in pieces if piece] == ["a", "é", "€", "😀", "."]  # never cut
    assert [c.choices[0].finish_reason for c in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert all(chunk.usage is None for chunk in chunks)
    assert last.choices == [] and last.usage.completion_tokens == 11


def test_logprobs_and_echo_in_streams(shared: Live) -> None:
    options: dict[str, Any] = {"max_tokens": 3, "logprobs": 1, "echo": True}
    whole = complete(shared, "abcd", **options).choices[0]
    chunks = list(complete(shared, "abcd", **options, stream=True))
    tokens = [t for chunk in chunks if (lp := chunk.choices[0].logprobs) for t in lp.tokens]
    offsets = [t for chunk in chunks if (lp := chunk.choices[0].logprobs) for t in lp.text_offset]
    assert chunks[0].choices[0].text == "abcd"
    assert (tokens, offsets) == (whole.logprobs.tokens, whole.logprobs.text_offset)
    only_echo = list(complete(shared, "ab", max_tokens=0, echo=True, stream=True))
    assert [c.choices[0].text for c in only_echo] == ["ab", ""]
    assert only_echo[-1].choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"max_tokens": 3}, 3),
        ({"max_completion_tokens": 3, "max_tokens": 5}, 3),
        ({"n_predict": 3}, 3),
        ({"n_predict": -1}, CONTEXT - 200),
        ({"options": {"num_predict": 3, "num_ctx": 4096}, "keep_alive": "5m"}, 3),  # twinny
        ({"options": {"num_predict": 3}, "max_tokens": 4}, 4),
    ],
)
def test_the_words_of_others_for_the_most_tokens(
    shared: Live, fields: dict[str, Any], tokens: int
) -> None:
    body = {"model": PYTHON, "prompt": "x" * 200, "ignore_eos": True, **fields}
    reply = shared.post("/v1/completions", **body).json()
    assert reply["usage"]["completion_tokens"] == tokens
    timings = reply["timings"]
    assert timings["predicted_n"] == tokens
    assert timings["prompt_n"] + timings["cache_n"] == reply["usage"]["prompt_tokens"] == 200


def test_options_say_what_openais_fields_do_not(shared: Live) -> None:
    options = {"temperature": 0.5, "stop": ["q"], "seed": 9, "repeat_penalty": 1.5}
    body = {"model": PYTHON, "prompt": "x", "max_tokens": 2, "temperature": 0.0}
    assert shared.post("/v1/completions", **body, options=options).status_code == 200
    _, params = asked(shared)
    assert (params.temperature, params.stop, params.seed) == (0.0, ("q",), 9)
    assert params.repetition_penalty == 1.5
