"""Many completions on one engine, as they end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from subllm.engine.request import Engine, Request, SamplingParams
from subllm.measuring.evaluation.stops import StopRule
from subllm.models.text.hole_end import Hole
from subllm.models.text.looping import looping

Ended = Literal["stop", "length", "rule", "loop"]


@dataclass(frozen=True)
class Ask:
    """One completion to make; `rule` may end it before the model does, and so does with
    `loops` that the model goes in circles (see `looping`). begun, hole as in `Request`."""

    id: str
    prompt: tuple[int, ...]
    params: SamplingParams
    rule: StopRule | None = None
    loops: bool = False
    begun: tuple[int, ...] = ()
    hole: Hole | None = None

    @property
    def tokens(self) -> int:
        """Of prompt and completion, at most."""
        return len(self.prompt) + len(self.begun) + self.params.max_tokens


@dataclass(frozen=True)
class Answer:
    """raw      all that was generated, stop strings left out
    text     the part of it that counts
    ended    "stop": by the model or a stop string, "length": max_tokens, "rule", "loop"
    tokens   how many were generated, stop token left out
    ids      those tokens
    seconds  from the first step on, beside the others that ran meanwhile
    """

    id: str
    raw: str
    text: str
    ended: Ended
    tokens: int
    ids: tuple[int, ...]
    seconds: float


@dataclass
class _Running:
    ask: Ask
    began: float
    raw: str = ""
    ids: list[int] = field(default_factory=list)


def generate(engine: Engine, asks: Iterable[Ask], together: int) -> Iterator[Answer]:
    """An answer for each of `asks`, in the order in which they end; `together` run at once.

    Whatever still runs when the iterator is closed is aborted. Raises as `Engine.add`, and
    what a request failed with.
    """
    waiting = deque(asks)
    running: dict[str, _Running] = {}
    try:
        while waiting or running:
            while waiting and len(running) < together:
                ask = waiting.popleft()
                request = Request(ask.id, ask.prompt, ask.params, begun=ask.begun, hole=ask.hole)
                engine.add(request)
                running[ask.id] = _Running(ask, time.monotonic())
            for event in engine.step():
                one = running.get(event.request_id)
                if one is None:  # the last word of one that was aborted
                    continue
                if event.error is not None:
                    raise event.error
                one.raw += event.text
                one.ids += event.tokens
                answer = _answer(one, event.finish_reason)
                if answer is not None:
                    del running[event.request_id]
                    if event.finish_reason is None:
                        engine.abort(event.request_id)
                    yield answer
    finally:
        for identity in running:
            engine.abort(identity)
        if running:
            engine.step()


def _answer(one: _Running, finish: str | None) -> Answer | None:
    rule = one.ask.rule
    cut = rule.cut(one.raw) if finish is None and rule is not None else None
    ended: Ended = "rule"
    if cut is None:
        if finish is not None:
            ended = "length" if finish == "length" else "stop"
        elif one.ask.loops and looping(one.raw):
            ended = "loop"
        else:
            return None
        cut = rule.end(one.raw) if rule is not None else len(one.raw)
    seconds = time.monotonic() - one.began
    ids = tuple(one.ids)
    return Answer(one.ask.id, one.raw, one.raw[:cut], ended, len(ids), ids, seconds)
