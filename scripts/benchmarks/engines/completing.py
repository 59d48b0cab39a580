"""Real completions on any engine, timed: what every worker that completes has in common.

It needs of subllm what imports neither numpy nor the native core, so that it runs in the
environment of llama-cpp-python too: both sides write under the very same rules.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from subllm.engine.request import Request, SamplingParams, TokenEvent
from subllm.measuring.evaluation.generate import Ask, generate
from subllm.measuring.evaluation.stops import function_rule


class Stepping(Protocol):
    """What `generate` asks of an engine."""

    def add(self, request: Request) -> None: ...

    def step(self) -> list[TokenEvent]: ...

    def abort(self, request_id: str) -> None: ...


@dataclass
class _Times:
    """When a request's first tokens were there and when its last so far, by the clock;
    `begun`: how many came first; `steps` gave tokens after that."""

    first: float
    last: float
    begun: int
    steps: int = 0


class Timed:
    """An engine that remembers when tokens came. `prepare` makes of a request the one that the
    engine gets."""

    def __init__(
        self, engine: Stepping, prepare: Callable[[Request], Request] = lambda request: request
    ) -> None:
        self._engine = engine
        self._prepare = prepare
        self.times: dict[str, _Times] = {}

    def add(self, request: Request) -> None:
        self._engine.add(self._prepare(request))

    def step(self) -> list[TokenEvent]:
        events = self._engine.step()
        now = time.perf_counter()
        counts: dict[str, int] = {}
        for event in events:
            if event.tokens:
                counts[event.request_id] = counts.get(event.request_id, 0) + len(event.tokens)
        for request_id, count in counts.items():
            times = self.times.setdefault(request_id, _Times(now, now, count))
            times.steps += times.last < now
            times.last = now
        return events

    def abort(self, request_id: str) -> None:
        self._engine.abort(request_id)


def completions(
    engine: Stepping,
    asks: Sequence[dict[str, Any]],
    together: int,
    prepare: Callable[[Request], Request] = lambda request: request,
) -> Iterator[dict[str, Any]]:
    """An answer for each of `asks`, as they end.

    asks    {"id", "prompt": token ids, "max_tokens", "head": text before the completion,
            "stop": strings}; a function of Python that `head` began ends by its rule, None
            goes on to the model's end; with "loops", which is the default, the model going in
            circles ends it. "temperature" and "seed" where it is sampled; "ignore_eos"
    Answers: {"id", "raw", "kept": characters that count, "ended", "ids", "seconds": of it all,
            "decoded": tokens that count after those of the first step, which ends the prompt,
            "decode_seconds": what they took, "steps": in how many steps they came}
    """
    timed = Timed(engine, prepare)
    for answer in generate(timed, [_ask(one) for one in asks], together):  # type: ignore[arg-type]
        times = timed.times.pop(answer.id, _Times(0.0, 0.0, 0))
        yield {
            "id": answer.id,
            "raw": answer.raw,
            "kept": len(answer.text),
            "ended": answer.ended,
            "ids": list(answer.ids),
            "seconds": answer.seconds,
            "decoded": max(0, len(answer.ids) - times.begun),
            "decode_seconds": times.last - times.first,
            "steps": times.steps,
        }


def _ask(one: dict[str, Any]) -> Ask:
    head = one.get("head")
    rule = None if head is None else function_rule("python", head)
    params = SamplingParams(
        max_tokens=one["max_tokens"],
        stop=tuple(one.get("stop", ())),
        ignore_eos=one.get("ignore_eos", False),
        temperature=one.get("temperature", 0.0),
        seed=one.get("seed", 0),
    )
    return Ask(one["id"], tuple(one["prompt"]), params, rule, loops=one.get("loops", True))
