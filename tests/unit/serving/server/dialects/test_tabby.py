"""Tabby's protocol, as tabby-agent speaks it."""

from __future__ import annotations

from typing import Any

import pytest

from subllm.serving.server.config import Limits
from subllm.serving.server.dialects.tabby_stops import stops_of
from unit.serving.server.tiny import CPP, JAVA, MID, PRE, SEP, SUF, Live

COMPLETIONS = "/v1/completions"
BODY: dict[str, Any] = {
    "language": "java",
    "segments": {
        "prefix": "int f() {\n    ",
        "suffix": "\n}",
        "filepath": "src/A.java",
        "git_url": "https://example.org/a.git",
        "declarations": [{"filepath": "B.java", "body": "int g();"}],
        "relevant_snippets_from_changed_files": [
            {"filepath": "C.java", "body": "int h;\n", "score": 1.0}
        ],
        "clipboard": "x",
    },
    "user": "me",
    "temperature": 0.1,
    "seed": 8,
}


def test_language_and_segments(shared: Live) -> None:
    reply = shared.post(COMPLETIONS, **BODY)
    assert reply.status_code == 200, reply.text
    assert reply.headers["x-subllm-route"] == "language" and reply.json()["model"] == JAVA
    assert reply.json()["choices"] == [{"index": 0, "text": "abc"}] and reply.json()["id"]
    prompt = shared.shelf.engine(JAVA).requests[-1].prompt
    files = (SEP, *b"C.java\nint h;\n", SEP, *b"B.java\nint g();\n", SEP, *b"src/A.java\n")
    assert prompt == (*files, PRE, SUF, *b"\n}", MID, *b"int f() {\n")


def test_the_path_routes_where_the_language_is_unknown(shared: Live) -> None:
    segments = {"prefix": "x", "filepath": "a.cpp"}
    reply = shared.post(COMPLETIONS, language="unknown", segments=segments, seed=9)
    assert (reply.json()["model"], reply.headers["x-subllm-route"]) == (CPP, "path")


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"segments": {}}, "segments"),
        ({"segments": {"prefix": 5}}, "segments"),
        ({"segments": None}, "segments"),
        ({"debug_options": {"return_prompt": True}}, "return_prompt"),
        ({"mode": "next_edit_suggestion"}, "mode"),
    ],
)
def test_errors(shared: Live, change: dict[str, Any], param: str) -> None:
    reply = shared.post(COMPLETIONS, **{**BODY, **change})
    assert reply.status_code == 400 and reply.json()["error"]["param"] == param


def test_health_and_events(shared: Live) -> None:
    for reply in (shared.http.get("/v1/health"), shared.post("/v1/health")):
        assert reply.status_code == 200
        assert {"model", "device", "arch", "cpu_info", "version"} <= set(reply.json())
    event = {"type": "view", "completion_id": "cmpl-1", "choice_index": 0}
    assert shared.post("/v1/events", **event).status_code == 200


def test_a_completion_ends_before_the_next_thing_of_the_file(shared: Live) -> None:
    def stops(**body: Any) -> tuple[str, ...]:
        assert shared.post(COMPLETIONS, **{**BODY, **body}).status_code == 200
        name = JAVA if body.get("language", "java") == "java" else CPP
        return shared.shelf.engine(name).requests[-1].params.stop

    assert {"\n//", "\npublic ", "\nclass "} <= set(stops())
    segments = {"prefix": "x", "filepath": "a.cpp"}
    assert "\n#include " in stops(language="unknown", segments=segments)
    assert stops(language="java", debug_options={"raw_prompt": "x"}) == ()
    for language, path in ((None, None), ("cobol", None), (None, "a.xyz")):
        assert stops_of(language, path) == ()
    limit = Limits().stops
    assert all(len(stops_of(name, None)) <= limit for name in ("python", "cpp", "tsx", "c#"))
