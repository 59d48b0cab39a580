"""What the next keystroke costs in an editor, and what many streams cost beside one.

    scripts/bench keys [MODEL] [--tokens 1500] [--reply 64] [--rounds 5] [--threads 2]

A file of so many tokens is completed at a cursor, as its first request (cold) and again after each
of a few more characters (warm), with a request for another file between: seconds from the request
to the first token, at the end of the file and in its middle. There the text behind the cursor
comes after what was typed, as models are trained, and is computed again. The CPU time that the
server spends on the same is told as well, for machines that do other things. Then eight prompts
of so many tokens are completed one by one and together: tokens of the replies per second, and how
much faster that could be at most, since prompts are read no faster together. Cold and warm, one by
one and together take turns, so that what else the machine does hits both.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import psutil
from bench_serve import PATIENCE, server, text

STREAMS = 8
TYPED = "total_count"


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
    arguments = parser.parse_args()
    with server(arguments.threads) as (url, process):
        bench = Bench(
            url, arguments.model, arguments.tokens, arguments.reply, psutil.Process(process.pid)
        )
        bench.first("x", "")
        bench.keystrokes("at the end", 1.0, arguments.rounds)
        bench.keystrokes("in the middle", 0.5, arguments.rounds)
        bench.together(max(1, arguments.rounds // 2))


class Bench:
    def __init__(
        self, url: str, model: str, tokens: int, reply: int, process: psutil.Process
    ) -> None:
        self._url, self._model, self._process = url, model, process
        self._tokens, self._reply_tokens = tokens, reply
        self._seed = 0

    def keystrokes(self, where: str, share: float, rounds: int) -> None:
        cold, warm, cached = [], [], []
        for _ in range(rounds):
            file = self._new()
            cursor = int(len(file) * share)
            before, after = f"{file[:cursor]}\n", file[cursor:]
            cold.append(self.first(before, after)[:2])
            self.first(self._new(), "")
            for count in range(1, len(TYPED), 3):
                seconds, spent, known = self.first(before + TYPED[:count], after)
                warm.append((seconds, spent))
                cached.append(known)
        print(f"cursor {where}, {statistics.median(cached):.0f} tokens cached")
        for name, part in (("first token", 0), ("CPU time", 1)):
            one, other = (statistics.median(row[part] for row in rows) for rows in (cold, warm))
            print(
                f"  {name:12} {1e3 * one:.0f} ms cold, {1e3 * other:.0f} ms after a keystroke: "
                f"{other / one:.3f} of it",
                flush=True,
            )

    def together(self, rounds: int) -> None:
        ratios, bounds = [], []
        for _ in range(rounds):
            alone = self._timed([[self._new()] for _ in range(STREAMS)])
            ratios.append(alone / self._timed([[self._new() for _ in range(STREAMS)]]))
            read = STREAMS * statistics.median(self.first(self._new(), "")[0] for _ in range(3))
            bounds.append(alone / (read + (alone - read) / STREAMS))
        print(
            f"{STREAMS} prompts with {self._reply_tokens} tokens each: together "
            f"{statistics.median(ratios):.2f} times as fast as one by one; {min(bounds):.2f} would "
            "be the most, with replies for the price of one"
        )

    def first(self, prompt: str, suffix: str) -> tuple[float, float, int]:
        """Seconds to the first token of the reply, seconds of CPU time for it, and how many of
        the prompt's were known."""
        body = {"model": self._model, "prompt": prompt, "suffix": suffix, "max_tokens": 1}
        began, spent = time.perf_counter(), self._spent()
        reply = self._post(body)
        seconds, spent = time.perf_counter() - began, self._spent() - spent
        return seconds, spent, int(reply["usage"]["prompt_tokens_details"]["cached_tokens"])

    def _spent(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system

    def _timed(self, groups: list[list[str]]) -> float:
        """Seconds of all, each group at once."""
        began = time.perf_counter()
        for group in groups:
            _at_once([self._reply(prompt) for prompt in group])
        return time.perf_counter() - began

    def _reply(self, prompt: str) -> Callable[[], None]:
        def ask() -> None:
            count = self._reply_tokens
            body = {"model": self._model, "prompt": prompt, "max_tokens": count, "ignore_eos": True}
            assert self._post(body)["usage"]["completion_tokens"] == count

        return ask

    def _post(self, body: dict[str, Any]) -> Any:
        reply = httpx.post(f"{self._url}/v1/completions", json=body, timeout=PATIENCE)
        reply.raise_for_status()
        return reply.json()

    def _new(self) -> str:
        self._seed += 1
        return text(self._tokens, self._seed)


def _at_once(jobs: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
