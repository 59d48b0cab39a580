"""What clients of a soak do: each function asks once and tells what came."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import httpx

PATIENCE = 300.0
"""Seconds after which a request counts as stuck."""
BODY = 2_000_000

SCHEMA = {
    "type": "object",
    "properties": {
        "size": {"enum": ["small", "large"]},
        "name": {"type": "string", "maxLength": 8},
    },
    "required": ["size"],
    "additionalProperties": False,
}
FUNCTION = {"name": "measure", "description": "Measures it.", "parameters": SCHEMA}
CODE = "def area(width, height):\n    return width * height\n\n\n"
HI = [{"role": "user", "content": "Name a sorting algorithm."}]


@dataclass
class Outcome:
    """status  0: the client left first, or no HTTP was spoken
    gaps    seconds between events of a stream
    fault   what should not have happened
    """

    status: int
    gaps: list[float] = field(default_factory=list)
    fault: str = ""


@dataclass(frozen=True)
class Visit:
    url: str
    model: str
    chance: random.Random

    @property
    def few(self) -> int:
        return self.chance.randint(1, 48)

    def text(self) -> str:
        """A piece of a file, mostly short, sometimes as long as the context and longer."""
        size = self.chance.choice([1, 1, 2, 4, 8, 200])
        return "".join(
            CODE.replace("area", f"area_{self.chance.randrange(1000)}") for _ in range(size)
        )

    def post(self, path: str, *, ok: tuple[int, ...] = (200,), **body: Any) -> Outcome:
        """A plain request. A prompt may be too long, and the queue full."""
        reply = httpx.post(f"{self.url}{path}", json=body, timeout=PATIENCE)
        return _checked(reply.status_code, reply.text, (*ok, 400, 429))

    def get(self, path: str) -> Outcome:
        reply = httpx.get(f"{self.url}{path}", timeout=PATIENCE)
        return _checked(reply.status_code, reply.text, (200,))

    def stream(
        self, path: str, ends: tuple[str, ...], *, slow: bool = False, **body: Any
    ) -> Outcome:
        """Read to its end, which is one of `ends` in the last line."""
        asked = {**body, "stream": True}
        with httpx.stream("POST", f"{self.url}{path}", json=asked, timeout=PATIENCE) as reply:
            if reply.status_code != 200:
                return _checked(reply.status_code, reply.read().decode(), (400, 429))
            last, times = "", []
            for line in _lines(reply):
                last = line
                times.append(time.monotonic())
                if slow:
                    time.sleep(0.05)
        gaps = [] if slow else [later - sooner for sooner, later in pairwise(times)]
        broken = "" if any(end in last for end in ends) else f"ended with {last[:200]!r}"
        return Outcome(200, gaps, broken)


def _lines(reply: httpx.Response) -> Iterator[str]:
    for line in reply.iter_lines():
        if line and not line.startswith((":", "event:")):
            yield line


def _checked(status: int, text: str, expected: tuple[int, ...]) -> Outcome:
    return Outcome(status, fault="" if status in expected else text)


# Dialects.

DONE = ("[DONE]",)


def completion(v: Visit) -> Outcome:
    return v.post("/v1/completions", model=v.model, prompt=v.text(), max_tokens=v.few, n=2)


def completion_stream(v: Visit) -> Outcome:
    body = {"model": v.model, "prompt": v.text(), "max_tokens": 4 * v.few}
    return v.stream("/v1/completions", DONE, **body)


def infilling(v: Visit) -> Outcome:
    body = {"model": v.model, "prompt": v.text(), "suffix": "\n" + CODE, "max_tokens": v.few}
    return v.stream("/v1/completions", DONE, **body)


def score(v: Visit) -> Outcome:
    asked = {"echo": True, "logprobs": 2, "max_tokens": 0}
    return v.post("/v1/completions", model=v.model, prompt=v.text(), **asked)


def chat(v: Visit) -> Outcome:
    return v.post("/v1/chat/completions", model=v.model, messages=HI, max_tokens=v.few)


def chat_schema(v: Visit) -> Outcome:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    body = {"model": v.model, "messages": HI, "max_tokens": 60, "response_format": form}
    return v.stream("/v1/chat/completions", DONE, **body)


def chat_tools(v: Visit) -> Outcome:
    body: dict[str, Any] = {"model": v.model, "messages": HI, "max_tokens": 60}
    body["tools"] = [{"type": "function", "function": FUNCTION}]
    body["tool_choice"] = v.chance.choice(["auto", "required"])
    return v.stream("/v1/chat/completions", DONE, **body)


def responses(v: Visit) -> Outcome:
    body: dict[str, Any] = {"model": v.model, "input": "hi", "max_output_tokens": 60}
    if v.chance.random() < 0.5:
        body["tools"] = [{"type": "function", **FUNCTION}]
        body["tool_choice"] = "required"
    return v.stream("/v1/responses", ("response.completed", "response.incomplete"), **body)


def messages(v: Visit) -> Outcome:
    body: dict[str, Any] = {"model": v.model, "messages": HI, "max_tokens": v.few}
    if v.chance.random() < 0.5:
        body["tools"] = [{"name": "measure", "input_schema": SCHEMA}]
    return v.stream("/v1/messages", ("message_stop",), **body)


def ollama(v: Visit) -> Outcome:
    options = {"num_predict": v.few}
    keep = v.chance.choice([0, "1s", "2s"])
    body = {"model": v.model, "options": options, "keep_alive": keep}
    if v.chance.random() < 0.5:
        return v.stream("/api/generate", ('"done":true',), prompt=v.text(), **body)
    return v.stream("/api/chat", ('"done":true',), messages=HI, **body)


def llama_cpp(v: Visit) -> Outcome:
    body: dict[str, Any] = {"model": v.model, "n_predict": v.few}
    if v.chance.random() < 0.5:
        return v.post("/infill", input_prefix=v.text(), input_suffix=CODE, **body)
    return v.stream("/completion", ('"stop":true',), prompt=v.text(), **body)


def mistral(v: Visit) -> Outcome:
    body = {"model": v.model, "prompt": v.text(), "suffix": CODE, "max_tokens": v.few}
    return v.stream("/v1/fim/completions", DONE, **body)


def tabby(v: Visit) -> Outcome:
    segments = {"prefix": v.text(), "suffix": CODE, "filepath": "area.py"}
    return v.post("/v1/completions", language="python", segments=segments)


def tokens(v: Visit) -> Outcome:
    return v.post("/tokenize", model=v.model, content=v.text())


def curious(v: Visit) -> Outcome:
    paths = ("/v1/models", "/health", "/metrics", "/props", "/slots", "/api/tags", "/api/ps", "/")
    return v.get(v.chance.choice(paths))


# Those that misbehave.


def nonsense(v: Visit) -> Outcome:
    """Bodies that are refused."""
    paths = ("/v1/completions", "/v1/chat/completions", "/api/chat", "/v1/responses")
    bodies = [b"{", b"[]", b'"x"', b'{"model": 5}', b'{"prompt": 3, "messages": 3, "input": []}']
    body = v.chance.choice([*bodies, json.dumps({"model": "none", "prompt": "x"}).encode()])
    headers = {"content-type": "application/json"}
    url = f"{v.url}{v.chance.choice(paths)}"
    reply = httpx.post(url, content=body, headers=headers, timeout=PATIENCE)
    return _checked(reply.status_code, reply.text, (400, 404))


def too_long(v: Visit) -> Outcome:
    return v.post("/v1/completions", ok=(413,), model=v.model, prompt="x = 1\n" * (BODY // 6))


def leaving(v: Visit) -> Outcome:
    """Away after some events, or while it waits for the first."""
    body = {"model": v.model, "prompt": v.text(), "max_tokens": 400, "stream": True}
    least, most = v.chance.choice([(0, 0), (1, 10)])
    events = v.chance.randint(least, most)
    timeout = httpx.Timeout(PATIENCE, read=0.3 if not events else PATIENCE)
    url = f"{v.url}/v1/completions"
    with (
        contextlib.suppress(httpx.ReadTimeout),
        httpx.stream("POST", url, json=body, timeout=timeout) as reply,
    ):
        for number, _ in enumerate(reply.iter_lines()):
            if number >= events:
                break
    return Outcome(0)


def leaving_plainly(v: Visit) -> Outcome:
    body = {"model": v.model, "prompt": v.text(), "max_tokens": 400}
    with contextlib.suppress(httpx.TimeoutException):
        httpx.post(f"{v.url}/v1/completions", json=body, timeout=v.chance.uniform(0.05, 0.5))
    return Outcome(0)


def half_sent(v: Visit) -> Outcome:
    """Less of a body than its head promises, then silence."""
    body = json.dumps({"model": v.model, "prompt": v.text()}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
    kind = b"Content-Type: application/json\r\n\r\n"
    sent = (head.encode() + kind + body)[: v.chance.randint(1, len(body))]
    with _connected(v.url) as connection:
        connection.sendall(sent)
        time.sleep(v.chance.uniform(0, 0.5))
    return Outcome(0)


def garbage(v: Visit) -> Outcome:
    with _connected(v.url) as connection:
        connection.sendall(v.chance.randbytes(v.chance.randint(1, 4000)))
        time.sleep(v.chance.uniform(0, 0.2))
    return Outcome(0)


def slow_reader(v: Visit) -> Outcome:
    body = {"model": v.model, "prompt": CODE, "max_tokens": v.few}
    return v.stream("/v1/completions", DONE, slow=True, **body)


def _connected(url: str) -> socket.socket:
    place = urlsplit(url)
    assert place.hostname is not None and place.port is not None
    return socket.create_connection((place.hostname, place.port), timeout=PATIENCE)


@dataclass(frozen=True)
class Action:
    act: Callable[[Visit], Outcome]
    weight: float


ACTIONS = {
    act.__name__: Action(act, weight)
    for weight, acts in (
        (4.0, (completion_stream, infilling)),
        (
            2.0,
            (completion, chat, chat_schema, chat_tools, responses, messages, ollama, llama_cpp),
        ),
        (1.0, (mistral, tabby, tokens, curious, score, nonsense)),
        (2.0, (leaving, leaving_plainly)),
        (1.0, (half_sent, garbage, slow_reader)),
        (0.3, (too_long,)),
    )
    for act in acts
}
