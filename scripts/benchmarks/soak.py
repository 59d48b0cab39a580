"""Whether a server stays well while clients of all kinds come, go and misbehave.

    scripts/bench soak [MODEL...] [--minutes 30] [--clients 6] [--threads 2] [--seed 0]

A server of its own holds one model at a time, for two seconds after its last request. Clients ask
two models (default: a dense one and another) in every dialect, plainly and as streams, with tools,
schemas, fill-in-the-middle and scores; they leave in the middle, send half a request, garbage,
bodies that are wrong or too long, read slowly, and ask what the server knows of itself. Ten times
all of them pause until nothing is loaded: what is resident three seconds later is compared. Told
are also gaps between events of streams, answers that were not expected, streams without their end
and requests that never ended. Exit status 1 for any of those, for a status of 500 and above, or
when more than 5 % of memory is gone after the second pause.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import threading
import time
from collections import Counter

import httpx
import psutil
from benchmarks.serve import server
from benchmarks.soaking.clients import ACTIONS, Outcome, Visit

PAUSES = 10
WARM = 2
"""Pauses after which what is resident shall stay."""
GROWTH = 1.05
TIDIED = 3.0
"""Seconds in which an idle server gives back what it does not need."""
QUIET = 300.0
"""Seconds until everything has ended and is unloaded, once nobody asks."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="*")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    options = ("--max-loaded-models", "1", "--keep-alive", "2s")
    with server(arguments.threads, *options) as (url, process):
        models = arguments.models or two_models(url)
        print(f"{arguments.clients} clients ask {' and '.join(models)}", flush=True)
        soak = Soak(url, models, arguments.clients, arguments.seed)
        try:
            resident = soak.run(60 * arguments.minutes, psutil.Process(process.pid))
        finally:
            soak.end()
    return soak.verdict(resident)


def two_models(url: str) -> list[str]:
    """A dense one, which every client gets sensible text of, and another."""
    found = [model["id"] for model in httpx.get(f"{url}/v1/models").json()["data"]]
    served = [name for name in found if "-" in name.partition(":")[2]]
    dense = [name for name in served if name.endswith("-dense")]
    return [*dense, *(name for name in served if name not in dense)][:2]


class Soak:
    """Clients, each on a thread of its own, that ask until they are told to end."""

    def __init__(self, url: str, models: list[str], clients: int, seed: int) -> None:
        self._url, self._models = url, models
        self._go, self._over = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._busy: dict[int, tuple[str, float]] = {}  # by client: what it does, since when
        self._statuses: Counter[str] = Counter()
        self._gaps: list[float] = []
        self._faults: list[str] = []
        self._threads = [
            threading.Thread(target=self._client, args=(number, seed), daemon=True)
            for number in range(clients)
        ]

    def run(self, seconds: float, process: psutil.Process) -> list[int]:
        """Bytes that are resident at each pause."""
        resident = []
        for thread in self._threads:
            thread.start()
        for pause in range(1, PAUSES + 1):
            asked, began = self._statuses.total(), len(self._gaps)
            self._go.set()
            peak = self._watch(seconds / PAUSES, process)
            self._go.clear()
            self._settle()
            resident.append(process.memory_info().rss)
            print(
                f"{pause:3}: {self._statuses.total() - asked:5} requests, resident "
                f"{resident[-1] / 1e6:.1f} MB idle, {peak / 1e6:.1f} MB at most, gaps of streams "
                f"{_milliseconds(self._gaps[began:])}, {len(self._faults)} faults",
                flush=True,
            )
        return resident

    def end(self) -> None:
        """Ask no more; what still runs is not looked at."""
        self._over.set()
        self._go.set()

    def verdict(self, resident: list[int]) -> int:
        growth = max(resident[WARM:]) / resident[WARM - 1]
        print(", ".join(f"{count} x {what}" for what, count in sorted(self._statuses.items())))
        print(f"gaps of streams: {_milliseconds(self._gaps)}")
        print(f"resident: {100 * (growth - 1):+.1f} % at most after pause {WARM}")
        return 1 if self._faults or growth > GROWTH else 0

    def _watch(self, seconds: float, process: psutil.Process) -> int:
        """The most that is resident meanwhile."""
        until, peak = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.5)
        return peak

    def _settle(self) -> None:
        """Wait until all have their answers and nothing is loaded."""
        until = time.monotonic() + QUIET
        health: dict[str, object] = {}
        while time.monotonic() < until:
            with contextlib.suppress(httpx.TransportError):
                health = httpx.get(f"{self._url}/health").json()
                if not (self._busy or health["open"] or health["loading"] or health["loaded"]):
                    time.sleep(TIDIED)
                    return
            time.sleep(0.2)
        now = time.monotonic()
        stuck = [f"{name} for {now - since:.0f} s" for name, since in self._busy.values()]
        self._fault(f"not idle after {QUIET:.0f} s: {stuck}, {json.dumps(health)[:500]}")

    def _client(self, number: int, seed: int) -> None:
        chance = random.Random(f"{seed} {number}")
        names, weights = list(ACTIONS), [action.weight for action in ACTIONS.values()]
        while True:
            self._go.wait()
            if self._over.is_set():
                return
            (name,) = chance.choices(names, weights)
            self._busy[number] = (name, time.monotonic())
            try:
                outcome = ACTIONS[name].act(Visit(self._url, chance.choice(self._models), chance))
            except Exception as error:
                outcome = Outcome(0, fault=f"{type(error).__name__}: {error}")
            del self._busy[number]
            with self._lock:
                if not self._over.is_set():
                    self._count(name, outcome)

    def _count(self, name: str, outcome: Outcome) -> None:
        self._statuses[str(outcome.status or "left")] += 1
        self._gaps += outcome.gaps
        if outcome.fault or outcome.status >= 500:
            self._fault(f"{name}: {outcome.status} {outcome.fault[:300]}")

    def _fault(self, text: str) -> None:
        self._faults.append(text)
        print(f"FAULT: {text}", flush=True)


def _milliseconds(gaps: list[float]) -> str:
    if not gaps:
        return "none"
    ordered = sorted(gaps)
    p99 = ordered[int(0.99 * (len(ordered) - 1))]
    return f"p99 {1e3 * p99:.0f} ms, longest {1e3 * ordered[-1]:.0f} ms"


if __name__ == "__main__":
    sys.exit(main())
