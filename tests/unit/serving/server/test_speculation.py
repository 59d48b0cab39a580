"""Which model drafts for a request, what comes of it, and that no answer changes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from subllm.errors import StoreError
from subllm.models.store.manifest import sha256_of
from unit.serving.server.connections import CHAT, COMPLETIONS, LONG, idle, read_all, send
from unit.serving.server.tiny import (
    BASE,
    JAVA,
    LARGE,
    PATIENCE,
    PYTHON,
    SMALL,
    Live,
    family,
    live,
    needs,
    until,
)

CODE = "def f(x):\n    return x is not None\n"
BODY: dict[str, Any] = {"model": LARGE, "prompt": CODE, "max_tokens": 40, "ignore_eos": True}


@pytest.fixture(scope="module")
def pairs() -> Iterator[Live]:
    with live(family()) as running:
        yield running


@pytest.fixture
def own() -> Iterator[Live]:
    with live(family()) as running:
        yield running


def draft_of(reply: httpx.Response) -> str | None:
    assert reply.status_code == 200, reply.text
    return reply.headers.get("x-subllm-draft")


def details(reply: httpx.Response) -> tuple[int, int]:
    found = reply.json()["usage"]["completion_tokens_details"]
    return found["accepted_prediction_tokens"], found["rejected_prediction_tokens"]


def text(reply: httpx.Response) -> str:
    assert reply.status_code == 200, reply.text
    return str(reply.json()["choices"][0]["text"])


def loaded(server: Live, name: str = LARGE) -> dict[str, Any]:
    return next(model for model in server.health()["loaded"] if model["model"] == name)


@pytest.mark.parametrize(
    ("body", "draft"),
    [
        ({}, PYTHON),  # by what the prompt looks like
        ({"language": "java"}, JAVA),
        ({"path": "a.java"}, JAVA),
        ({"model": "tiny:2m"}, None),  # its Python sub-model answers
        ({"model": "tiny:2m", "language": "java"}, JAVA),  # its dense model does
        ({"language": "rust"}, SMALL),
        ({"prompt": "x", "language": "c++"}, SMALL),  # the C++ one has other tokens
        ({"model": SMALL}, None),
        ({"model": PYTHON}, None),
        ({"model": "other:1m-dense"}, None),
        ({"speculation": None}, PYTHON),
        ({"speculation": "auto"}, PYTHON),
        ({"speculation": "ngram"}, None),
        ({"speculation": "off"}, None),
        ({"speculation": JAVA}, JAVA),
        ({"speculation": SMALL}, SMALL),
        ({"model": "tiny:2m-python", "speculation": PYTHON}, PYTHON),
        ({"model": SMALL, "speculation": PYTHON}, PYTHON),
    ],
)
def test_who_drafts(body: dict[str, Any], draft: str | None, pairs: Live) -> None:
    assert draft_of(pairs.post(COMPLETIONS, **{**BODY, "max_tokens": 1, **body})) == draft


def test_the_chat_tells_its_language_too(pairs: Live) -> None:
    messages = [{"role": "user", "content": "Sort a list in Java."}]
    reply = pairs.post(CHAT, model=LARGE, messages=messages, max_tokens=1)
    assert draft_of(reply) == JAVA


def test_no_draft_changes_a_text_and_all_are_told_of(own: Live) -> None:
    plain = own.post(COMPLETIONS, **BODY, speculation="off")
    assert details(plain) == (0, 0)
    assert loaded(own)["draft"] is None and own.shelf.drafts == []
    for speculation, draft in (("auto", PYTHON), ("ngram", PYTHON), (SMALL, SMALL), (JAVA, JAVA)):
        for _ in range(2):  # while it loads, and with it
            assert text(own.post(COMPLETIONS, **BODY, speculation=speculation)) == text(plain)
            until(lambda draft=draft: loaded(own)["draft"] == draft)
    request = own.shelf.engine(LARGE).requests
    modes = [one.speculation for one in request]
    assert modes == ["off", "auto", "auto", "ngram", "ngram", *["auto"] * 4]
    assert [draft.name for draft in own.shelf.drafts] == [PYTHON, SMALL, JAVA]


def test_accepted_tokens_are_told_by_usage_and_health(own: Live) -> None:
    body = {**BODY, "prompt": "y", "speculation": SMALL}  # of another session
    before, _ = details(own.http.post(COMPLETIONS, json=body, headers={"User-Agent": "before"}))
    until(lambda: loaded(own)["draft"] == SMALL)
    reply = own.post(COMPLETIONS, **BODY, speculation=SMALL)
    accepted, rejected = details(reply)
    assert 0 < accepted <= 40 and rejected == 0  # its weights are the same
    until(lambda: idle(own))
    found = loaded(own)
    assert (found["draft"], found["draft_failure"]) == (SMALL, None)
    assert found["drafted"]["draft"]["accepted"] > 0
    assert sum(counts["accepted"] for counts in found["drafted"].values()) == before + accepted
    messages = [{"role": "user", "content": "x"}]
    body = {"model": LARGE, "messages": messages, "max_tokens": 40, "speculation": SMALL}
    body |= {"stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True}
    lines = [line for line in own.post(CHAT, **body).text.splitlines() if line]
    usage = json.loads(lines[-2].removeprefix("data: "))["usage"]
    assert usage["completion_tokens"] == 40
    assert 0 < usage["completion_tokens_details"]["accepted_prediction_tokens"] <= 40


@pytest.mark.parametrize("form", ["text", "parts"])
@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
def test_a_prediction_drafts_whoever_answers(path: str, form: str, own: Live) -> None:
    body: dict[str, Any] = {**BODY, "model": PYTHON}
    if path == CHAT:
        body["messages"] = [{"role": "user", "content": body.pop("prompt")}]
    plain = own.post(path, **body, speculation="off")
    choice = plain.json()["choices"][0]
    answer = choice["text"] if path == COMPLETIONS else choice["message"]["content"]
    parts = [{"type": "text", "text": answer[:7]}, {"type": "text", "text": answer[7:]}]
    prediction = {"type": "content", "content": answer if form == "text" else parts}
    guessed = own.post(path, **body, prediction=prediction)
    assert guessed.json()["choices"] == plain.json()["choices"]
    asked = own.shelf.engine(PYTHON).requests[-1]
    assert bytes(asked.prediction).decode() == answer and asked.speculation == "ngram"
    assert details(guessed)[0] > 10
    wrong = own.post(path, **body, prediction={"type": "content", "content": "<|end|>zzz"})
    assert wrong.json()["choices"] == plain.json()["choices"]
    assert 256 not in own.shelf.engine(PYTHON).requests[-1].prediction  # a marker is text


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"speculation": 3}, "speculation", "string"),
        ({"speculation": "fast"}, "speculation", "unknown model 'fast'"),
        ({"speculation": f"{BASE}-pyton"}, "speculation", f"did you mean {PYTHON}"),
        ({"speculation": LARGE}, "speculation", "not smaller than tiny:2m-dense"),
        ({"speculation": PYTHON, "model": PYTHON}, "speculation", "not smaller"),
        ({"speculation": "other:1m-dense"}, "speculation", "another family than tiny:2m-dense"),
        ({"speculation": "tiny:swapped-cpp"}, "speculation", "its tokens are not those of"),
        ({"speculation": "x" * 2000}, "speculation", "1024"),
        ({"prediction": "x"}, "prediction", ""),
        ({"prediction": {"type": "text", "content": "x"}}, "prediction", "content"),
        ({"prediction": {"type": "content"}}, "prediction", "required"),
        ({"prediction": {"type": "content", "content": 3}}, "prediction", ""),
        ({"prediction": {"type": "content", "content": [{"type": "x"}]}}, "prediction", ""),
    ],
)
@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
def test_bad_input(path: str, body: dict[str, Any], param: str, message: str, pairs: Live) -> None:
    whole = {**BODY, **body}
    if path == CHAT:
        whole["messages"] = [{"role": "user", "content": whole.pop("prompt")}]
    engines, drafts = len(pairs.shelf.engines), len(pairs.shelf.drafts)
    reply = pairs.post(path, **whole)
    error = reply.json()["error"]
    assert (reply.status_code, error["param"], error["type"]) == (
        400,
        param,
        "invalid_request_error",
    )
    assert message in error["message"] and "\n" not in error["message"]
    assert (len(pairs.shelf.engines), len(pairs.shelf.drafts)) == (engines, drafts)


@pytest.mark.parametrize(
    ("setting", "body", "draft"),
    [
        ("off", {}, None),
        ("off", {"speculation": "auto"}, PYTHON),
        ("ngram", {}, None),
        (SMALL, {}, SMALL),
        (SMALL, {"model": SMALL}, None),  # a setting need not fit every model
        (SMALL, {"model": "other:1m-dense"}, None),
        ("tiny:1m-gone", {}, None),  # it was removed
    ],
)
def test_the_setting_where_a_request_says_nothing(
    setting: str, body: dict[str, Any], draft: str | None
) -> None:
    with live(family(), speculation=setting) as server:
        assert draft_of(server.post(COMPLETIONS, **{**BODY, "max_tokens": 1, **body})) == draft
        mode = server.shelf.engines[-1].requests[-1].speculation
        assert mode == ("off" if setting == "off" and not body else "auto" if draft else "ngram")


@pytest.mark.parametrize(
    "failure", [StoreError("a blob is missing; run 'subllm verify'"), ZeroDivisionError("x")]
)
def test_a_draft_that_does_not_load(failure: Exception, own: Live) -> None:
    plain = text(own.post(COMPLETIONS, **BODY, speculation="off"))
    tried = []

    def loading(name: str) -> None:
        if name.startswith("draft"):
            tried.append(name)
            raise type(failure)(*failure.args)  # a traceback keeps what it passed through

    own.shelf.loading = loading
    for _ in range(3):
        reply = own.post(COMPLETIONS, **BODY)
        assert text(reply) == plain and draft_of(reply) == PYTHON
        until(lambda: loaded(own)["draft_failure"] is not None)
    assert tried == [f"draft {PYTHON}"]  # once
    found = loaded(own)
    assert found["draft"] is None
    assert found["draft_failure"].startswith(f"{PYTHON}: ")
    assert ("verify" if isinstance(failure, StoreError) else "ZeroDivisionError") in found[
        "draft_failure"
    ]
    assert own.shelf.engine(LARGE).requests[-1].speculation == "ngram"
    own.shelf.loading = lambda name: None
    # A mended model has another digest.
    mended = own.shelf.manifest(PYTHON).model_copy(update={"plan": sha256_of(b"new")})  # type: ignore[union-attr]
    own.shelf.manifests[PYTHON] = mended
    assert text(own.post(COMPLETIONS, **BODY)) == plain
    until(lambda: loaded(own)["draft"] == PYTHON)
    assert loaded(own)["draft_failure"] is None


def test_an_engine_that_breaks_with_its_draft_is_reloaded(own: Live) -> None:
    plain = text(own.post(COMPLETIONS, **BODY, speculation="off"))
    engine = own.shelf.engine(LARGE)
    engine.broken = "set_draft"
    engine.delay = 0.01
    engine.hold_at = engine.steps + 2
    connection = send(own, COMPLETIONS, BODY)
    until(lambda: bool(own.shelf.drafts))
    engine.gate.set()
    assert b" 500 " in read_all(connection).partition(b"\r\n")[0]
    assert text(own.post(COMPLETIONS, **BODY)) == plain
    assert len(own.shelf.engines) == 2


def test_requests_that_run_keep_their_draft(own: Live) -> None:
    """Another language's request beside them goes without, the next one has its own."""
    own.post(COMPLETIONS, **{**LONG, "model": LARGE, "max_tokens": 1})
    engine = own.shelf.engine(LARGE)
    engine.delay = 0.01
    first = send(own, COMPLETIONS, {**BODY, "max_tokens": 150})
    until(lambda: loaded(own)["draft"] == PYTHON)
    java = own.post(COMPLETIONS, **{**BODY, "language": "java", "max_tokens": 20})
    assert draft_of(java) == JAVA
    assert [one.speculation for one in engine.requests[-2:]] == ["auto", "ngram"]
    assert loaded(own)["draft"] == PYTHON
    assert b" 200 " in read_all(first)
    assert draft_of(own.post(COMPLETIONS, **{**BODY, "language": "java"})) == JAVA
    until(lambda: loaded(own)["draft"] == JAVA)
    assert [draft.name for draft in own.shelf.drafts] == [PYTHON, JAVA]


def test_a_session_is_a_key_an_agent_and_an_address(own: Live) -> None:
    for headers in ({"User-Agent": "a"}, {"User-Agent": "a"}, {"User-Agent": "b"}):
        own.http.post(COMPLETIONS, json={**BODY, "max_tokens": 1}, headers=headers)
    one, same, other = (request.session for request in own.shelf.engine(LARGE).requests)
    assert one is not None and one == same != other


def test_no_token_waits_for_the_draft(own: Live) -> None:
    asked, goes_on = threading.Event(), threading.Event()

    def loading(name: str) -> None:
        if name.startswith("draft"):
            asked.set()
            assert goes_on.wait(PATIENCE)

    own.shelf.loading = loading
    with own.http.stream("POST", COMPLETIONS, json={**BODY, "stream": True}) as reply:
        lines = (line for line in reply.iter_lines() if line)
        assert "choices" in next(lines)
        assert asked.wait(PATIENCE)
        assert own.health()["loading"] == PYTHON
        assert list(lines)[-1] == "data: [DONE]"  # nor does any other
    goes_on.set()
    until(lambda: loaded(own)["draft"] == PYTHON)
    assert own.health()["loading"] is None


def test_a_request_that_ends_at_once_loads_no_draft(own: Live) -> None:
    own.post(COMPLETIONS, **{**BODY, "max_tokens": 1})
    assert own.shelf.drafts == []


def test_a_draft_for_which_there_is_no_room() -> None:
    with live(family(), memory=sum(needs(native=True)) + 1000) as server:
        plain = text(server.post(COMPLETIONS, **BODY, speculation="off"))
        for _ in range(2):
            assert text(server.post(COMPLETIONS, **BODY)) == plain
        assert server.shelf.drafts == []
        assert loaded(server)["draft_failure"] == f"{PYTHON}: there is no room for it in memory"


def test_no_draft_is_loaded_where_none_can_be_checked() -> None:
    """Torch's results depend on how many tokens are in a step."""
    with live(family(native=False)) as server:
        assert draft_of(server.post(COMPLETIONS, **BODY)) == PYTHON
        assert server.shelf.drafts == []
        assert "backend" in loaded(server)["draft_failure"]
