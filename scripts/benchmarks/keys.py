"""What the next keystroke costs in an editor, and what many streams cost beside one.

    scripts/bench keys [MODEL] [--tokens 1500] [--reply 64] [--rounds 5] [--peer no]
                         [--lines no] [--threads 2]

A file of so many tokens is completed at a cursor, as its first request (cold) and again after each
of a few more characters (warm), with a request for another file between: seconds from the request
to the first token, at the end of the file and in its middle. There ours has the last lines before
the cursor after the text behind it. Then a new line is begun after each of some more, most of which
add to the end of our prompt too; and so in a window: of what is before the cursor half as many
lines as the file has are sent, as llama.vim sends 256. The CPU time that the server spends on the
same is told as well, for machines that do other things.
llama.cpp's own server is asked the same of the same base beside it (its GGUF has to be in the
store), set up and asked as llama.vim does it: prompts are kept, parts that moved may be used
again, and the line of the cursor is told apart. New lines take it long: `--lines no` leaves them
out. It is the package xllamacpp, compiled for AVX2: with SUBLLM_ISA=avx2 ours is as well. Then
eight prompts of so many tokens are completed one by one and together: tokens of the replies per
second, and how much faster that could be at most, since prompts are read no faster together. Cold
and warm, ours and the peer's, one by one and together take turns, so that what else the machine
does hits both.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from benchmarks.engines.peer import base_gguf, server_python
from benchmarks.serve import PATIENCE, listening, server, text

from subllm.machine import usable_cores
from subllm.models.store.manifest import ModelManifest
from subllm.models.store.store import Store
from subllm.models.text.fim import AHEAD

STREAMS = 8
TYPED = "total_count"
KEYS = [TYPED[:count] for count in range(1, len(TYPED), 3)]
LINES = ["total = count\n" * count for count in range(1, 2 * AHEAD + 1)]
PEER = "llama.cpp server"
CLIENT = httpx.Client(timeout=PATIENCE)
"""For all requests, as connections are kept by editors; to make one takes some milliseconds."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/bench keys",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", nargs="?", default="qwen2.5-coder:0.5b-dense")
    parser.add_argument("--tokens", type=int, default=1500)
    parser.add_argument("--reply", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--peer", choices=("yes", "no"), default="yes")
    parser.add_argument("--lines", choices=("yes", "no"), default="yes")
    parser.add_argument("--peer-python", default="", help="of an environment that has the peer")
    parser.add_argument("--gguf", default="", help="what the peer serves; default: the base's own")
    arguments = parser.parse_args()
    store = Store(Path(os.environ["SUBLLM_HOME"]))
    manifest = store.manifest(store.names()[arguments.model])
    assert isinstance(manifest, ModelManifest)
    with contextlib.ExitStack() as stack:
        url, process = stack.enter_context(server(arguments.threads))
        ask = _completions(arguments.model)
        asked = [Asked("subllm", url, psutil.Process(process.pid), ask)]
        if arguments.peer == "yes":
            file = base_gguf(store, manifest.base.name, arguments.gguf)
            threads = arguments.threads or usable_cores()
            python = server_python(arguments.peer_python)
            asked.append(stack.enter_context(peer(python, file, threads, 2 * arguments.tokens)))
        bench = Bench(asked, arguments.model, arguments.tokens, arguments.reply)
        for one in asked:
            one.first("x", "")
        bench.keystrokes("at the end", 1.0, arguments.rounds)
        bench.keystrokes("in the middle", 0.5, arguments.rounds)
        if arguments.lines == "yes":
            bench.keystrokes("in the middle, at new lines", 0.5, arguments.rounds, LINES)
            bench.keystrokes("in a window, at new lines", 0.75, arguments.rounds, LINES, window=0.5)
        bench.together(max(1, arguments.rounds // 2))


@contextlib.contextmanager
def peer(python: str, file: Path, threads: int, context: int) -> Iterator[Asked]:
    """llama.cpp's own server, asked as llama.vim asks."""
    program = Path(__file__).with_name("engines") / "llama_cpp_server.py"
    command = [python, str(program), str(file), str(threads), str(context)]
    with listening(command, "/health", stderr=subprocess.DEVNULL) as (url, process):
        while httpx.get(f"{url}/health").status_code == 503:  # the model is being loaded
            time.sleep(0.1)
        yield Asked(PEER, url, psutil.Process(process.pid), _infill, _llamacpp_known)


Asking = Callable[[str, str], tuple[str, dict[str, Any]]]
"""Path and body of a request for the token that follows one text and precedes another."""


def _completions(model: str) -> Asking:
    def ask(before: str, after: str) -> tuple[str, dict[str, Any]]:
        body = {"model": model, "max_tokens": 1, "temperature": 0, "stream": True}
        body |= {"stream_options": {"include_usage": True}, "prompt": before}
        return "/v1/completions", {**body, "suffix": after} if after else body

    return ask


def _infill(before: str, after: str) -> tuple[str, dict[str, Any]]:
    body = {"n_predict": 1, "temperature": 0, "stream": True, "cache_prompt": True}
    if not after:
        return "/completion", {**body, "prompt": before}
    line = before.rindex("\n") + 1
    parts = {"input_prefix": before[:line], "prompt": before[line:], "input_suffix": after}
    return "/infill", body | parts


def _openai_known(event: dict[str, Any]) -> int | None:
    usage = event.get("usage") or {}
    known = usage.get("prompt_tokens_details", {}).get("cached_tokens")
    return None if known is None else int(known)


def _llamacpp_known(event: dict[str, Any]) -> int | None:
    known = event.get("timings", {}).get("cache_n")
    return None if known is None else int(known)


@dataclass(frozen=True)
class First:
    """Seconds from a request to its first token, seconds of CPU time meanwhile, and how many tokens
    of the prompt were known, where that is told."""

    wall: float
    cpu: float
    cached: int | None


@dataclass(frozen=True)
class Asked:
    """A server. `known` reads from an event of its reply how many tokens of the prompt it had."""

    name: str
    url: str
    process: psutil.Process
    ask: Asking
    known: Callable[[dict[str, Any]], int | None] = _openai_known

    def first(self, before: str, after: str) -> First:
        """The reply is read to its end: what the server keeps it has then kept."""
        path, body = self.ask(before, after)
        began, spent, found, cached = time.perf_counter(), self._spent(), None, None
        with CLIENT.stream("POST", f"{self.url}{path}", json=body) as reply:
            reply.raise_for_status()
            for line in reply.iter_lines():
                if not line.startswith("data: {"):
                    continue
                if found is None:
                    found = time.perf_counter() - began, self._spent() - spent
                known = self.known(json.loads(line.removeprefix("data: ")))
                cached = cached if known is None else known
        assert found is not None
        return First(*found, cached)

    def _spent(self) -> float:
        times = self.process.cpu_times()
        return times.user + times.system


class Bench:
    """Of all that are `asked`, the first being ours."""

    def __init__(self, asked: list[Asked], model: str, tokens: int, reply: int) -> None:
        self._asked, self._ours, self._model = asked, asked[0], model
        self._tokens, self._reply_tokens = tokens, reply
        self._seed = 0

    def keystrokes(
        self,
        where: str,
        share: float,
        rounds: int,
        typed: Sequence[str] = KEYS,
        window: float = 1.0,
    ) -> None:
        """window: share of the file's lines that are sent at most of those before the cursor."""
        cold: dict[str, list[First]] = {one.name: [] for one in self._asked}
        warm: dict[str, list[First]] = {one.name: [] for one in self._asked}
        for _ in range(rounds):
            file, other = self._new(), self._new()
            cursor = file.rindex("\n", 0, int(len(file) * share)) + 1
            before, after = file[:cursor], file[cursor:]
            lines = round(file.count("\n") * window)
            for one in self._asked:
                cold[one.name].append(one.first(_last(before, lines), after))
                one.first(other, "")
                for more in typed:
                    warm[one.name].append(one.first(_last(before + more, lines), after))
        print(f"cursor {where}")
        for name, found in warm.items():
            cached = [first.cached for first in found if first.cached is not None]
            print(f"  {'tokens known':12} {name:17} {statistics.mean(cached):.0f} on average")
        key = "line" if typed is LINES else "keystroke"
        for name, part in (("first token", "wall"), ("CPU time", "cpu")):
            ours = 0.0
            for one in self._asked:
                average = statistics.mean if typed is LINES else statistics.median
                sooner, later = (
                    average(getattr(first, part) for first in found[one.name])
                    for found in (cold, warm)
                )
                ours = ours or later
                beside = "" if one is self._ours else f"; ours is {ours / later:.2f} of that"
                print(
                    f"  {name:12} {one.name:17} {1e3 * sooner:.0f} ms cold, {1e3 * later:.0f} ms "
                    f"after a {key}: {later / sooner:.3f} of it{beside}",
                    flush=True,
                )

    def together(self, rounds: int) -> None:
        ratios, bounds = [], []
        for _ in range(rounds):
            alone = self._timed([[self._new()] for _ in range(STREAMS)])
            ratios.append(alone / self._timed([[self._new() for _ in range(STREAMS)]]))
            read = STREAMS * statistics.median(
                self._ours.first(self._new(), "").wall for _ in range(3)
            )
            bounds.append(alone / (read + (alone - read) / STREAMS))
        print(
            f"{STREAMS} prompts with {self._reply_tokens} tokens each: together "
            f"{statistics.median(ratios):.2f} times as fast as one by one; {min(bounds):.2f} would "
            "be the most, with replies for the price of one"
        )

    def _timed(self, groups: list[list[str]]) -> float:
        """Seconds of all, each group at once."""
        began = time.perf_counter()
        for group in groups:
            _at_once([self._reply(prompt) for prompt in group])
        return time.perf_counter() - began

    def _reply(self, prompt: str) -> Callable[[], None]:
        def ask() -> None:
            count = self._reply_tokens
            body = {"model": self._model, "prompt": prompt, "max_tokens": count}
            assert self._post({**body, "ignore_eos": True})["usage"]["completion_tokens"] == count

        return ask

    def _post(self, body: dict[str, Any]) -> Any:
        reply = CLIENT.post(f"{self._ours.url}/v1/completions", json=body)
        reply.raise_for_status()
        return reply.json()

    def _new(self) -> str:
        self._seed += 1
        words = text(self._tokens, self._seed).split()
        return "".join(f"{' '.join(words[at : at + 8])}\n" for at in range(0, len(words), 8))


def _last(text: str, lines: int) -> str:
    """So many lines that are whole, and what is begun behind them."""
    return "".join(text.splitlines(keepends=True)[-lines:])


def _at_once(jobs: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
