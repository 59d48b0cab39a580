"""llama.cpp's routes with the bodies of llama.vim and llama.vscode."""

from __future__ import annotations

import json
from typing import Any

import pytest

from unit.serving.server.connections import idle, send
from unit.serving.server.tiny import (
    CONTEXT,
    JAVA,
    MID,
    PRE,
    PYTHON,
    SEP,
    SUF,
    Live,
    live,
    shelf,
    tokenizer,
    until,
)

VSCODE: dict[str, Any] = {
    "model": PYTHON,
    "id_slot": 0,
    "input_prefix": "def f(x):\n",
    "input_suffix": "\n",
    "input_extra": [{"filename": "a.py", "text": "y = 1\n"}],
    "prompt": "    ",
    "n_predict": 3,
    "n_cmpl": 1,
    "n_indent": 0,
    "top_k": 40,
    "top_p": 0.99,
    "stream": False,
    "samplers": ["top_k", "top_p", "infill"],
    "cache_prompt": True,
    "t_max_prompt_ms": 500,
    "t_max_predict_ms": 500,
    "seed": 9,
}
FIELDS = [
    "content",
    "timings/prompt_n",
    "timings/prompt_ms",
    "timings/predicted_per_second",
    "truncated",
    "tokens_cached",
    "no/such",
]


def last_prompt(server: Live) -> tuple[int, ...]:
    return server.shelf.engine(PYTHON).requests[-1].prompt


def test_infill(shared: Live) -> None:
    reply = shared.post("/infill", **VSCODE).json()
    assert (reply["content"], reply["stop_type"], reply["stop"]) == ("abc", "limit", True)
    assert reply["model"] == PYTHON
    assert (reply["tokens_predicted"], reply["timings"]["predicted_n"]) == (3, 3)
    timings = reply["timings"]
    assert timings["prompt_n"] + timings["cache_n"] == reply["tokens_evaluated"]
    extra = (SEP, *b"a.py\ny = 1\n")
    assert last_prompt(shared) == (*extra, PRE, *b"def f(x):\n    ", SUF, 10, MID)


def test_fields_that_are_asked_for_keep_their_slashes(shared: Live) -> None:
    reply = shared.post("/infill", **VSCODE, response_fields=FIELDS).json()
    assert list(reply) == FIELDS[:-1] and reply["content"] == "abc"


def test_several_completions_are_a_list(shared: Live) -> None:
    reply = shared.post("/infill", **{**VSCODE, "n_cmpl": 3, "seed": 8, "temperature": 1.0})
    results = reply.json()
    assert [result["index"] for result in results] == [0, 1, 2]
    assert [result["content"] for result in results[:2]] == ["abc", "abc"]  # seeds 8 and 9
    assert all(result["timings"]["predicted_n"] <= 4 for result in results)


def test_a_warm_up_keeps_the_prompt() -> None:
    with live(shelf()) as server:
        body = {**VSCODE, "input_prefix": "x" * 100}
        warm = server.post("/infill", **{**body, "n_predict": 0}).json()
        assert (warm["content"], warm["tokens_predicted"]) == ("", 0)
        assert warm["timings"]["cache_n"] == 0
        reply = server.post("/infill", **body).json()
        assert reply["content"] == "abc" and reply["timings"]["cache_n"] > 50


def test_what_follows_the_cursor_is_not_said_again(shared: Live) -> None:
    """The model says abcdefgh here, whatever it is asked."""
    body = {**VSCODE, "prompt": "", "n_predict": 8, "n_indent": None}
    for line, after, said, end in (
        ("", "abcdefgh\n", "", "eos"),
        ("", "\nabcdefgh\n", "", "eos"),
        ("x = ", "\nabcdefgh\n", "abcdefgh", "limit"),
        ("", "bcdefgh\n", "abcdefgh", "limit"),
    ):
        reply = shared.post("/infill", **{**body, "prompt": line, "input_suffix": after}).json()
        assert (reply["content"], reply["stop_type"], reply["stopping_word"]) == (said, end, "")
    whole = {**body, "input_suffix": "abcdefgh\n", "ignore_eos": True}
    assert shared.post("/infill", **whole).json()["content"] == "abcdefgh"


def test_a_window_that_moves_on_begins_where_it_did() -> None:
    lines = [f"x{number} = f({number * 7919 % 1000})\n" for number in range(90)]
    with live(shelf()) as server:
        for first in range(3):
            window = "".join(lines[first : first + 12])
            body = {**VSCODE, "input_prefix": window, "input_extra": [], "prompt": ""}
            reply = server.post("/infill", **body, speculation="off").json()
            prompt = tokenizer().decode(list(last_prompt(server)))
            assert prompt.startswith(f"<|pre|>{lines[0]}") and lines[first + 11] in prompt
        assert reply["timings"]["prompt_n"] < 40 < reply["timings"]["cache_n"]


def test_what_is_read_ahead_is_read_by_the_model_that_will_be_asked() -> None:
    with live(shelf()) as server:
        files = [{"filename": "w.java", "text": "class A { void f() {} }\n"}]
        body = {"input_prefix": "", "input_suffix": "", "prompt": "", "input_extra": files}
        warm = server.post("/infill", **body, n_predict=0).json()
        assert warm["model"] == JAVA
        asked = {**body, "input_prefix": "class B {\n", "n_predict": 3, "model": JAVA, "seed": 9}
        assert server.post("/infill", **asked).json()["timings"]["cache_n"] > 20


def test_files_that_do_not_fit_are_left_out_the_first_first(shared: Live) -> None:
    files = [{"filename": f"{name}.py", "text": name * 100} for name in "abc"]
    assert shared.post("/infill", **{**VSCODE, "input_extra": files}).status_code == 200
    prompt = tokenizer().decode(list(last_prompt(shared)))
    assert "a.py" not in prompt and "c.py" in prompt
    assert len(last_prompt(shared)) < CONTEXT


def test_streams_end_with_the_result(shared: Live) -> None:
    body = {"model": PYTHON, "prompt": "x", "n_predict": 4, "stream": True, "seed": 8}
    lines = shared.post("/completion", **body).text.strip().split("\n\n")
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert [chunk["content"] for chunk in chunks] == ["a", "b", "c", ""]
    assert [chunk["stop"] for chunk in chunks] == [False, False, False, True]
    assert chunks[-1]["stop_type"] == "eos" and "timings" in chunks[-1]


def test_completion_of_text_ids_and_lists(shared: Live) -> None:
    body: dict[str, Any] = {"model": PYTHON, "n_predict": 8, "seed": 9}
    one = shared.post("/completion", **body, prompt="x", stop=["c"], return_tokens=True).json()
    assert (one["content"], one["stop_type"], one["stopping_word"]) == ("ab", "word", "c")
    assert one["tokens"][:2] == [97, 98]
    assert shared.post("/completion", **body, prompt=[120]).json()["content"] == "abcdefgh"
    two = shared.post("/completion", **body, prompt=["x", "y"]).json()
    assert [result["content"] for result in two] == ["abcdefgh"] * 2
    bias = {**body, "seed": None, "ignore_eos": True, "n_predict": 2, "logit_bias": [[97, 90.0]]}
    assert shared.post("/completion", **bias, prompt="x").json()["content"] == "aa"


def test_without_a_limit_the_context_is_one(shared: Live) -> None:
    body = {"model": PYTHON, "prompt": "x" * 200, "n_predict": -1, "ignore_eos": True}
    reply = shared.post("/completion", **body).json()
    assert reply["tokens_predicted"] == CONTEXT - 200


def test_tokens_and_templates(shared: Live) -> None:
    marked = {"model": PYTHON, "content": "a<|mid|>"}
    assert shared.post("/tokenize", **marked).json() == {"tokens": [97, MID]}
    plain = shared.post("/tokenize", **marked, parse_special=False).json()["tokens"]
    assert plain == list(b"a<|mid|>")
    pieces = shared.post("/tokenize", model=PYTHON, content="é", with_pieces=True).json()["tokens"]
    assert pieces == [{"id": byte, "piece": [byte]} for byte in "é".encode()]
    assert shared.post("/detokenize", model=PYTHON, tokens=[104, 105]).json() == {"content": "hi"}
    assert shared.post("/detokenize", model=PYTHON, tokens=[999]).status_code == 400
    messages = [{"role": "user", "content": "hi"}]
    reply = shared.post("/apply-template", model=PYTHON, messages=messages).json()
    assert reply == {"prompt": "[user]hi\n[assistant]"}


def test_properties_slots_and_metrics() -> None:
    with live(shelf()) as server:
        props = server.http.get("/props", params={"model": JAVA}).json()
        assert props["default_generation_settings"]["n_ctx"] == CONTEXT
        assert props["model_alias"] == JAVA and props["total_slots"] == 8
        assert server.http.get("/props", params={"model": "x"}).status_code == 404
        assert server.http.get("/slots").json() == []
        server.post("/infill", **VSCODE)
        until(lambda: bool(server.http.get("/slots").json()))
        slots = server.http.get("/slots").json()
        assert len(slots) == 8 and {slot["is_processing"] for slot in slots} == {False}
        reply = server.http.get("/metrics")
        assert reply.headers["content-type"].startswith("text/plain")
        lines = reply.text.splitlines()
        assert "llamacpp:tokens_predicted_total 3.0" in lines
        assert "llamacpp:replies_total 1.0" in lines and "llamacpp:models_loaded 1.0" in lines


@pytest.mark.parametrize(
    ("path", "change", "status", "kind"),
    [
        ("/infill", {"input_prefix": None}, 400, "invalid_request_error"),
        ("/infill", {"input_extra": {}}, 400, "invalid_request_error"),
        ("/infill", {"input_extra": [{"filename": "x"}]}, 400, "invalid_request_error"),
        ("/infill", {"grammar": "root ::= x"}, 400, "invalid_request_error"),
        ("/infill", {"n_predict": -3}, 400, "invalid_request_error"),
        ("/infill", {"input_prefix": "x" * 300}, 400, "exceed_context_size_error"),
        ("/infill", {"model": "llama"}, 404, "not_found_error"),
        ("/completion", {"prompt": []}, 400, "invalid_request_error"),
    ],
)
def test_errors(shared: Live, path: str, change: dict[str, Any], status: int, kind: str) -> None:
    reply = shared.post(path, **{**VSCODE, **change})
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert (error["code"], error["type"]) == (status, kind) and error["message"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_stops_the_work(slow: Live, stream: bool) -> None:
    """As llama.vim does at the next key."""
    engine = slow.shelf.engine(PYTHON)
    body = {**VSCODE, "n_predict": 200, "t_max_predict_ms": 0, "stream": stream, "seed": None}
    connection = send(slow, "/infill", {**body, "ignore_eos": True})
    engine.hold_at = engine.steps + 3
    until(lambda: engine.held)
    connection.close()
    until(lambda: slow.worker.open == 0)
    engine.gate.set()
    until(lambda: idle(slow) and not engine.has_work())
    assert len(engine.aborted) == 1
