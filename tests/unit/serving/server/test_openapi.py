"""The description of the routes tells what they do."""

from __future__ import annotations

from unit.serving.server.tiny import PYTHON, Live


def test_statuses_are_those_that_come(shared: Live) -> None:
    paths = shared.http.get("/openapi.json").json()["paths"]
    for path, route in paths.items():
        for method, operation in route.items():
            told = set(operation["responses"])
            assert "422" not in told and {"200", "400", "401", "404"} <= told, path
            assert ("413" in told) == (method == "post"), path
    for path in ("/v1/completions", "/infill", "/api/chat", "/v1/messages", "/tokenize"):
        told = paths[path]["post"]["responses"]
        for body in ({"model": PYTHON, "options": 5, "content": 5}, {"model": "none"}):
            assert str(shared.post(path, **body).status_code) in told
        assert str(shared.http.post(path, content=b"{").status_code) in told


def test_documented_bodies_are_accepted(shared: Live) -> None:
    """As they stand and as streams, which come as what is documented too."""
    paths = shared.http.get("/openapi.json").json()["paths"]
    tried = 0
    for path, route in paths.items():
        operation = route.get("post", {})
        if "requestBody" not in operation:
            continue
        tried += 1
        (content,) = operation["requestBody"]["content"].values()
        kinds = set(operation["responses"]["200"]["content"])
        for more in ({}, {"stream": True}, {"stream": False}):
            reply = shared.post(path, **content["example"], **more)
            assert reply.status_code == 200, (path, reply.text)
            assert reply.headers["content-type"].partition(";")[0] in kinds, path
    assert tried >= 16
