"""What a running stream notices of everything else, and how soon a cancelled request is gone.

    scripts/bench serve [MODEL] [--other MODEL] [--tokens 4000] [--rounds 20] [--threads 2]

A server of its own streams one completion of MODEL; beside it, one after the other, come a
prompt of so many tokens, one that is scored, a body of 4 MB, the first request for a form, and one
for OTHER (which has to be loaded). For each: gaps between events of the stream, alone and
meanwhile. Then a long prompt, and a score, are given up after a second, and the time is told until
the engine is idle. Then the same engine runs in this process as well, and completes short
prompts in turn with the server: what the server adds to the first token, and takes from the speed
of the others. Before all that, and when everything has been unloaded, it is left alone: what is
resident then, and what it takes of a CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from itertools import pairwise
from operator import sub, truediv
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
from benchmarks import frame

from subllm.engine.computing import Computing
from subllm.engine.engine import LocalEngine
from subllm.engine.loader import load_engine
from subllm.engine.request import Request, SamplingParams
from subllm.models.store.manifest import ModelManifest
from subllm.models.store.tokenizers import open_tokenizer
from subllm.models.text.fim import encode_begun
from subllm.models.text.tokenizer import Tokenizer

WORDS = ("value", "self", "index", "result", "count", "data", "name", "error", "total", "item")
FOR_EVER: dict[str, Any] = {"max_tokens": 3000, "ignore_eos": True, "stream": True}
PATIENCE = 600.0
REPLY = 128
REST = 10
"""Seconds over which an idle server is watched."""


def main() -> None:
    parser = frame.parser("serve", __doc__, rounds=20)
    parser.add_argument("model", nargs="?", default="qwen2.5-coder:0.5b-dense")
    parser.add_argument("--other")
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    with server(arguments.threads) as (url, process):
        at_rest("at the start", process)
        measure(url, process, arguments)
        compare(url, arguments)
        unload(url)
        at_rest("with everything unloaded", process)


def at_rest(when: str, process: subprocess.Popen[bytes]) -> None:
    watched = psutil.Process(process.pid)
    time.sleep(1)
    watched.cpu_percent()
    time.sleep(REST)
    share, size = watched.cpu_percent(), watched.memory_info().rss / 1e6
    print(f"idle {when}: {size:.0f} MB resident, {share:.2f} % of a CPU", flush=True)


def unload(url: str) -> None:
    client = httpx.Client(base_url=url, timeout=PATIENCE)
    while loaded := client.get("/health").json()["loaded"]:
        for model in loaded:
            client.post("/api/generate", json={"model": model["model"], "keep_alive": 0})
        time.sleep(0.1)


def measure(url: str, process: subprocess.Popen[bytes], arguments: argparse.Namespace) -> None:
    client = httpx.Client(base_url=url, timeout=PATIENCE)

    def post(**body: Any) -> int:
        return client.post("/v1/completions", json={"model": arguments.model, **body}).status_code

    post(prompt="x", max_tokens=1)
    arrivals: dict[str, Callable[[], int]] = {
        f"{arguments.tokens} tokens": lambda: post(prompt=text(arguments.tokens), max_tokens=1),
        f"{arguments.tokens} scored": lambda: post(
            prompt=text(arguments.tokens, 3), max_tokens=0, echo=True, logprobs=1
        ),
        "a body of 4 MB": lambda: post(prompt="x = 1\n" * 700_000, max_tokens=1),
        "a form": lambda: post(prompt="x", max_tokens=1, response_format={"type": "json_object"}),
    }
    if arguments.other:
        arrivals["a load"] = lambda: post(model=arguments.other, prompt="x", max_tokens=1)
    with Stream(url, arguments.model) as stream:
        stream.wait(20)
        report("alone", stream.during(nothing))
        for name, arrival in arrivals.items():
            report(name, stream.during(arrival))
    idle(client)
    for name, body in (
        ("a prompt", {"prompt": text(arguments.tokens, 1), "max_tokens": 1}),
        ("a score", {"prompt": text(arguments.tokens, 2), "echo": True, "logprobs": 1}),
    ):
        with contextlib.suppress(httpx.ReadTimeout), httpx.Client(base_url=url, timeout=1.0) as one:
            one.post("/v1/completions", json={"model": arguments.model, **body})
        left = time.monotonic()
        idle(client)
        print(f"{name} given up: idle after {time.monotonic() - left:.2f} s")
    resident = psutil.Process(process.pid).memory_info().rss / 1e6
    print(f"resident {resident:.0f} MB, models loaded", flush=True)


def compare(url: str, arguments: argparse.Namespace) -> None:
    store = frame.store()
    manifest = store.manifest(store.names()[arguments.model])
    assert isinstance(manifest, ModelManifest)
    tokenizer = open_tokenizer(store, manifest)
    engine = load_engine(store, arguments.model, computing=Computing(threads=arguments.threads))
    through = Through(url, arguments.model)
    ways = (
        lambda prompt: list(in_process(engine, tokenizer, prompt)),
        lambda prompt: list(through(prompt)),
    )
    first: tuple[list[float], ...] = ([], [])
    speed: tuple[list[float], ...] = ([], [])
    for number in range(2 * (arguments.rounds + 1)):
        way = (number + number // 2) % 2  # who begins takes turns as well
        began = time.perf_counter()
        times = ways[way](f"def function_{number}(value):\n")
        time.sleep(0.05)  # the other's threads are asleep by then
        if number >= 2:  # the first round warms up
            first[way].append(times[0] - began)
            speed[way].append((REPLY - 1) / (times[-1] - times[0]))
    engine.close()
    print(
        f"first token after {1e3 * statistics.median(first[0]):.1f} ms in process, "
        f"{1e3 * statistics.median(first[1]):.1f} ms through the server: "
        f"{1e3 * statistics.median(map(sub, first[1], first[0])):+.1f} ms"
    )
    print(
        f"{statistics.median(speed[0]):.1f} tokens a second in process, "
        f"{statistics.median(speed[1]):.1f} through the server: "
        f"{100 * (statistics.median(map(truediv, speed[1], speed[0])) - 1):+.1f} %"
    )


def in_process(engine: LocalEngine, tokenizer: Tokenizer, prompt: str) -> Iterator[float]:
    """When each token came."""
    params = SamplingParams(max_tokens=REPLY, ignore_eos=True)
    ids, begun = encode_begun(tokenizer, prompt)  # as the server does
    engine.add(Request(prompt, ids, params, begun=begun))
    while engine.has_work():
        for event in engine.step():
            yield from [time.perf_counter()] * len(event.tokens)


class Through:
    """One connection that is kept, as editors do, and of a client that takes as little of the
    machine as it can: what is measured is the server."""

    def __init__(self, url: str, model: str) -> None:
        self._model, self._connection = model, HTTPConnection(urlsplit(url).netloc)

    def __call__(self, prompt: str) -> Iterator[float]:
        """When each piece came, the last with the last token."""
        body = {"model": self._model, "prompt": prompt, **FOR_EVER, "max_tokens": REPLY}
        headers = {"content-type": "application/json"}
        self._connection.request("POST", "/v1/completions", json.dumps(body), headers)
        reply = self._connection.getresponse()
        # Events of one token each, as they come: `readline` would look at every byte.
        while piece := reply.read1():
            yield from [time.perf_counter()] * piece.count(b"data: {")


def nothing() -> int:
    time.sleep(5)
    return 0


def report(name: str, found: tuple[list[float], int, float]) -> None:
    gaps, status, seconds = found
    gaps.sort()
    p99 = gaps[min(len(gaps) - 1, int(0.99 * len(gaps)))]
    print(
        f"{name:16} {status:4} in {seconds:6.1f} s: {len(gaps)} gaps, median "
        f"{1e3 * statistics.median(gaps):.0f} ms, p99 {1e3 * p99:.0f} ms, "
        f"longest {1e3 * gaps[-1]:.0f} ms",
        flush=True,
    )


class Stream:
    """A completion that is read on a thread of its own, and begun anew when it ends."""

    def __init__(self, url: str, model: str) -> None:
        self._url, self._model = url, model
        self._times: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Stream:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def wait(self, events: int) -> None:
        while len(self._times) < events:
            time.sleep(0.01)

    def during(self, arrival: Callable[[], int]) -> tuple[list[float], int, float]:
        """Gaps until what arrives is answered, the one that is open then as well."""
        first = len(self._times)
        start = time.monotonic()
        status = arrival()
        seconds = time.monotonic() - start
        self.wait(max(first, len(self._times)) + 2)
        times = self._times[max(0, first - 1) :]
        gaps = [later - sooner for sooner, later in pairwise(times)]
        return gaps, status, seconds

    def _read(self) -> None:
        body = {"model": self._model, "prompt": "def f(x):\n", **FOR_EVER}
        while not self._over.is_set():
            with httpx.stream(
                "POST", f"{self._url}/v1/completions", json=body, timeout=PATIENCE
            ) as reply:
                for line in reply.iter_lines():
                    if line.startswith("data: {"):
                        self._times.append(time.monotonic())
                    if self._over.is_set():
                        break


def idle(client: httpx.Client) -> None:
    while any(model["active"] for model in client.get("/health").json()["loaded"]):
        time.sleep(0.01)


def text(tokens: int, seed: int = 0) -> str:
    """About so many."""
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS) for _ in range(tokens - 50))


@contextlib.contextmanager
def server(threads: int | None, *options: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    program = str(Path(sys.executable).with_name("subllm"))
    command = [program, "serve", "--speculation", "off"]
    command += ["--threads", str(threads)] if threads else []
    with listening([*command, *options], "/health") as running:
        yield running


@contextlib.contextmanager
def listening(
    command: list[str], path: str, **options: Any
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A server that takes `--port`, once `path` is answered; SIGTERM afterwards. `options` are
    those of Popen. Whoever ends the benchmark with SIGTERM ends the server too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with subprocess.Popen(
        [*command, "--port", str(port)], stdout=subprocess.DEVNULL, **options
    ) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            while process.poll() is None:
                with contextlib.suppress(httpx.TransportError):
                    httpx.get(f"{url}{path}")
                    break
                time.sleep(0.1)
            yield url, process
        finally:
            process.send_signal(signal.SIGTERM)


if __name__ == "__main__":
    main()
