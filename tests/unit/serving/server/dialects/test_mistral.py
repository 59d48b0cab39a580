"""Mistral's and DeepSeek's fill-in-the-middle, as Continue and Mistral's client ask for it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from mistralai.client import Mistral

from unit.serving.server.tiny import MID, PRE, PYTHON, SUF, Live

FIM = "/v1/fim/completions"
# What Continue's "mistral" provider sends.
CONTINUE: dict[str, Any] = {
    "model": PYTHON,
    "prompt": "def f(x):\n    ",
    "suffix": "\n",
    "max_tokens": 3,
    "temperature": 0.01,
    "top_p": 1,
    "stop": ["<|pre|>", "\n\n"],
    "stream": True,
}


def events(text: str) -> list[dict[str, Any]]:
    *lines, done, empty = text.split("\n\n")
    assert (done, empty) == ("data: [DONE]", "")
    return [json.loads(line.removeprefix("data: ")) for line in lines]


@pytest.mark.parametrize("path", [FIM, "/fim/completions"])
def test_continue_streams(shared: Live, path: str) -> None:
    reply = shared.post(path, **{**CONTINUE, "random_seed": 9})
    chunks = events(reply.text)
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks) == "abc"
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None, None, "length"]
    assert chunks[-1]["usage"]["completion_tokens"] == 3
    assert chunks[-1]["timings"]["predicted_n"] == 3
    prompt = shared.shelf.engine(PYTHON).requests[-1].prompt
    assert prompt == (PRE, *CONTINUE["prompt"].encode(), SUF, 10, MID)


def test_mistrals_own_client(shared: Live) -> None:
    client = Mistral(api_key="none", server_url=shared.url)
    options: dict[str, Any] = {"model": PYTHON, "prompt": "x\n", "max_tokens": 3, "random_seed": 9}
    whole = client.fim.complete(**options, suffix="y")
    assert whole.choices[0].message is not None
    assert whole.choices[0].message.content == "abc"
    assert whole.usage.total_tokens == 9  # three markers, x, a newline, y and three more
    pieces = client.fim.stream(**options)
    assert "".join(str(piece.data.choices[0].delta.content) for piece in pieces) == "abc"


@pytest.mark.parametrize("path", ["/v1/beta/completions", "/beta/completions", "/completions"])
def test_deepseeks_is_openais(shared: Live, path: str) -> None:
    body = {"model": PYTHON, "prompt": "x\n", "suffix": "y", "max_tokens": 3, "seed": 9}
    assert shared.post(path, **body).json()["choices"][0]["text"] == "abc"


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"min_tokens": 3}, 400, "min_tokens"),
        ({"prompt": 5}, 400, "prompt"),
        ({"random_seed": "x"}, 400, "random_seed"),
        ({"model": "mistral"}, 404, "model"),
    ],
)
def test_errors(shared: Live, change: dict[str, Any], status: int, param: str) -> None:
    reply = shared.post(FIM, **{**CONTINUE, **change})
    assert reply.status_code == status
    error = reply.json()
    assert (error["object"], error["param"]) == ("error", param)
    assert isinstance(error["message"], str)
