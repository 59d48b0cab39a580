"""Who is answered: Host header, API key, content type; and that no CORS header exists."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import pytest

from server.test_errors import COMPLETIONS, check
from server.tiny import PYTHON, Live, live, shelf
from subllm.cli.serve import command as serve_command
from subllm.server.guard import host_name
from subllm.settings import Settings

HOSTS = [
    ("localhost", True),
    ("LOCALHOST:11435", True),
    ("localhost.:80", True),
    ("api.localhost", True),
    ("127.0.0.1", True),
    ("127.0.0.1:99", True),
    ("[::1]", True),
    ("[::1]:11435", True),
    ("evil.example", False),
    ("evil.example:11435", False),
    ("localhost.evil.example", False),
    ("127.0.0.1.evil.example", False),
    ("192.168.1.5", False),
    ("[::1", False),
    ("localhost:x", False),
    ("", False),
    ("a@localhost", False),
]


@pytest.mark.parametrize(("host", "answered"), HOSTS)
def test_host_header(shared: Live, host: str, answered: bool) -> None:
    reply = shared.http.get("/v1/models", headers={"host": host})
    if answered:
        assert reply.status_code == 200
    else:
        check(reply, 403, None, "host_not_allowed")
    assert shared.http.get("/health", headers={"host": host}).status_code == reply.status_code


def test_what_a_refused_host_is_told_exists(shared: Live) -> None:
    reply = shared.http.get("/v1/models", headers={"host": "box.lan"})
    message = check(reply, 403, None, "host_not_allowed")
    variables = re.findall(r"SUBLLM_([A-Z_]+)", message)
    options = re.findall(r"--([a-z-]+)", message)
    assert variables and options
    assert {name.lower() for name in variables} <= set(Settings.model_fields)
    serve = inspect.signature(serve_command).parameters
    assert {name.replace("-", "_") for name in options} <= set(serve) & set(Settings.model_fields)


def test_host_name() -> None:
    assert host_name("[2001:DB8::1]:80") == "2001:db8::1"
    assert host_name("a.b.:1") == "a.b"
    assert host_name(":80") is None


@pytest.fixture(scope="module")
def guarded() -> Iterator[Live]:
    with live(shelf(), api_key="sesame", host="0.0.0.0", allowed_hosts=("box.lan",)) as running:
        yield running


def test_a_server_on_the_network_answers_addresses_and_its_names(guarded: Live) -> None:
    key = {"authorization": "Bearer sesame"}
    for host in ("192.168.1.5:11435", "[2001:db8::1]", "box.lan", "localhost"):
        assert guarded.http.get("/v1/models", headers={**key, "host": host}).status_code == 200
    # A name that was not allowed could be rebound to this machine.
    reply = guarded.http.get("/v1/models", headers={**key, "host": "evil.example"})
    check(reply, 403, None, "host_not_allowed")


@pytest.mark.parametrize(
    "value", [None, "", "Bearer", "Bearer wrong", "Basic sesame", "sesame", "Bearer sésame"]
)
def test_a_wrong_key(guarded: Live, value: str | None) -> None:
    headers = {} if value is None else {"authorization": value.encode()}
    for reply in (
        guarded.http.get("/v1/models", headers=headers),
        guarded.http.post(COMPLETIONS, json={"prompt": "x"}, headers=headers),
        guarded.http.get("/nope", headers=headers),
        guarded.http.get("/openapi.json", headers=headers),
    ):
        check(reply, 401, None, "invalid_api_key")
        assert reply.headers["www-authenticate"] == "Bearer"


def test_the_right_key_and_health_without_one(guarded: Live) -> None:
    client = guarded.openai.with_options(api_key="sesame")
    assert client.completions.create(model=PYTHON, prompt="x", max_tokens=1).model == PYTHON
    assert guarded.http.get("/health").json()["status"] == "ok"


def test_no_cors_and_no_preflight(shared: Live) -> None:
    origin = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    preflight = shared.http.options(COMPLETIONS, headers=origin)
    check(preflight, 405, None, "method_not_allowed")
    plain = shared.http.get("/v1/models", headers=origin)
    for reply in (preflight, plain):
        assert not [name for name in reply.headers if name.startswith("access-control")]
        assert "server" not in reply.headers


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_what_a_web_page_may_send_without_asking_is_refused(shared: Live, kind: str | None) -> None:
    headers = {} if kind is None else {"content-type": kind}
    reply = shared.http.post(COMPLETIONS, content=b'{"prompt": "x"}', headers=headers)
    check(reply, 415, None, "content_type")


def test_content_types_that_are_json(shared: Live) -> None:
    for kind in ("application/json; charset=utf-8", "Application/JSON", "application/x+json"):
        body = f'{{"prompt": "x", "max_tokens": 1, "model": "{PYTHON}"}}'.encode()
        reply = shared.http.post(COMPLETIONS, content=body, headers={"content-type": kind})
        assert reply.status_code == 200, reply.text


def test_forwarded_headers_do_not_take_over_a_session(shared: Live) -> None:
    def post(forwarded: str, **body: str) -> str:
        headers = {"user-agent": "proxied", "x-forwarded-for": forwarded}
        body = {"model": "auto", "prompt": "x", **body}
        reply = shared.http.post(COMPLETIONS, json={**body, "max_tokens": 1}, headers=headers)
        return reply.headers["x-subllm-route"]

    post("10.0.0.1", language="java")
    assert post("10.0.0.2") == "session"  # the same peer, whatever it claims
