"""Who is answered: Host header, API key, content type; and that no CORS header exists."""

from __future__ import annotations

import inspect
import json
import re
import socket
import time
from collections.abc import Iterator

import pytest

from subllm.cli.serve import command as serve_command
from subllm.cli.server_client import ServerClient
from subllm.serving.server import connection
from subllm.serving.server.guard import host_name
from subllm.settings import Settings
from unit.serving.server.test_errors import COMPLETIONS, check
from unit.serving.server.tiny import PATIENCE, PYTHON, Live, live, shelf

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


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": b"sesame"},
        {"x-api-key": b"sesame", "authorization": b"Bearer none-is-needed"},
        {"authorization": b"bearer   sesame"},
    ],
)
def test_where_a_key_may_stand(guarded: Live, headers: dict[str, bytes]) -> None:
    assert guarded.http.get("/v1/models", headers=headers).status_code == 200


def test_a_wrong_x_api_key(guarded: Live) -> None:
    headers = {"x-api-key": "wrong", "authorization": "Bearer sesame"}
    check(guarded.http.get("/v1/models", headers=headers), 401, None, "invalid_api_key")


def test_a_key_of_any_letters() -> None:
    with live(shelf(), api_key="Schlüssel-鍵") as running:
        for key, status in (("Schlüssel-鍵", 200), ("Schlüssel-锁", 401), ("Schl\ufffdssel", 401)):
            for headers in ({"authorization": f"Bearer {key}"}, {"x-api-key": key}):
                sent = {name: value.encode() for name, value in headers.items()}
                assert running.http.get("/v1/models", headers=sent).status_code == status
        client = ServerClient(f"http://{running.host}:{running.port}", "Schlüssel-鍵")
        assert client.get("/v1/models")["data"]
    with live(shelf(), api_key="clé") as running:
        for sent in ("clé".encode(), "clé".encode("latin-1")):
            reply = running.http.get("/v1/models", headers={"authorization": b"Bearer " + sent})
            assert reply.status_code == 200


VSCODE = "vscode-webview://0kfh3a1b"


def test_an_allowed_origin_may_ask_and_read() -> None:
    origins = ("vscode-webview://*", "https://app.example", "http://localhost:*")
    with live(shelf(), api_key="sesame", allowed_origins=origins) as running:
        for origin in (VSCODE, "https://app.example", "http://localhost:5173"):
            asks = {"origin": origin, "access-control-request-method": "POST"}
            wanted = {**asks, "access-control-request-headers": "authorization, content-type"}
            preflight = running.http.options(COMPLETIONS, headers=wanted)
            assert preflight.status_code == 200  # a preflight carries no key
            assert preflight.headers["access-control-allow-origin"] == origin
            assert "POST" in preflight.headers["access-control-allow-methods"]
            without = running.http.get("/v1/models", headers={"origin": origin})
            check(without, 401, None, "invalid_api_key")
            assert without.headers["access-control-allow-origin"] == origin
            key = {"origin": origin, "authorization": "Bearer sesame"}
            reply = running.http.get("/v1/models", headers=key)
            assert reply.headers["access-control-allow-origin"] == origin
            assert "access-control-allow-credentials" not in reply.headers
        for origin in (
            "https://app.example.evil",
            "https://evil.example",
            "null",
            "http://localhost",
        ):
            asks = {"origin": origin, "access-control-request-method": "POST"}
            for reply in (
                running.http.options(COMPLETIONS, headers=asks),
                running.http.get("/v1/models", headers={"origin": origin}),
            ):
                assert not [name for name in reply.headers if name.startswith("access-control")]
        rebound = running.http.options(
            COMPLETIONS, headers={**asks, "origin": VSCODE, "host": "evil"}
        )
        check(rebound, 403, None, "host_not_allowed")


def test_webviews_of_vs_code_may_unless_the_settings_say_otherwise(shared: Live) -> None:
    reply = shared.http.get("/v1/models", headers={"origin": VSCODE})
    assert reply.headers["access-control-allow-origin"] == VSCODE
    with live(shelf(), allowed_origins=()) as running:
        reply = running.http.get("/v1/models", headers={"origin": VSCODE})
        assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize("head", ["", "GET /health HT", "GET /health HTTP/1.1\r\nHost: loc"])
def test_half_a_head_ends(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "STALL_SECONDS", 0.3)
    with live(shelf()) as running, socket.create_connection((running.host, running.port)) as peer:
        peer.sendall(head.encode())
        peer.settimeout(PATIENCE)
        began = time.monotonic()
        assert peer.recv(1000) == b""
        assert time.monotonic() - began < PATIENCE / 2
        assert running.http.get("/health").status_code == 200


def test_a_head_that_drips_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "STALL_SECONDS", 0.5)
    with (
        live(shelf()) as running,
        socket.create_connection((running.host, running.port)) as peer,
        pytest.raises(OSError),
    ):
        for byte in b"GET /health HTTP/1.1\r\n" + b"X-A: " + b"a" * 2000:
            peer.sendall(bytes([byte]))
            time.sleep(0.05)


def test_half_a_body_ends_and_a_slow_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    # Long beside the 0.3 s between pieces: on a busy machine a sleep takes a second longer.
    monkeypatch.setattr(connection, "STALL_SECONDS", 3.0)
    body = json.dumps({"model": PYTHON, "prompt": "x", "max_tokens": 1}).encode()
    head = (
        f"POST {COMPLETIONS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    with live(shelf()) as running:
        address = (running.host, running.port)
        with socket.create_connection(address, timeout=PATIENCE) as peer:
            peer.sendall(head + body[:5])
            assert peer.recv(1000) == b""
        with socket.create_connection(address, timeout=PATIENCE) as peer:
            peer.sendall(head)
            for at in range(0, len(body), 4):
                time.sleep(0.3)
                peer.sendall(body[at : at + 4])
            assert peer.recv(1000).startswith(b"HTTP/1.1 200")


def test_a_reply_that_takes_long_is_no_half_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "STALL_SECONDS", 0.2)
    with live(shelf()) as running:
        running.post(COMPLETIONS, model=PYTHON, prompt="x", max_tokens=1)
        running.shelf.engine(PYTHON).delay = 0.1
        reply = running.http.post(
            COMPLETIONS,
            json={"model": PYTHON, "prompt": "x", "max_tokens": 8, "ignore_eos": True},
        )
        assert reply.status_code == 200


def test_what_is_echoed_is_cut(shared: Live) -> None:
    long = "x" * 200_000
    for body in (
        {"model": long, "prompt": "x"},
        {"model": PYTHON, "prompt": "x", "language": long},
        {"model": PYTHON, "prompt": "x", long: 1},
        {"model": PYTHON, "prompt": "x", "speculation": long},
        {"model": PYTHON, "prompt": "x", "max_tokens": long},
    ):
        reply = shared.http.post(COMPLETIONS, json=body)
        assert reply.status_code in (200, 400, 404)
        assert len(reply.content) < 4_000, reply.content[:300]
    for reply in (
        shared.http.get("/" + "x" * 20_000),
        shared.http.get("/v1/models/" + "x" * 20_000),
        shared.http.post(
            COMPLETIONS, json={"prompt": "x"}, headers={"x-subllm-language": "x" * 9000}
        ),
    ):
        assert 400 <= reply.status_code < 500 and len(reply.content) < 4_000


def test_a_language_that_nobody_knows_is_refused(shared: Live) -> None:
    for reply in (
        shared.http.post(COMPLETIONS, json={"prompt": "x", "language": "pyhton"}),
        shared.http.post(
            COMPLETIONS, json={"prompt": "x"}, headers={"x-subllm-language": "pyhton"}
        ),
    ):
        assert "did you mean python" in check(reply, 400, "language", "unknown_language")
    segments = {"segments": {"prefix": "x"}, "language": "an-editors-own"}
    assert shared.http.post(COMPLETIONS, json=segments).status_code == 200


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
