"""The requests that run and those that ended last, for people who look on. What they ask and
what they are told is not kept."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from subllm.serving.server.reply import Reply

_ENDED = 20  # that are remembered


@dataclass(frozen=True)
class _Live:
    reply: Reply
    path: str
    client: str


class LiveRequests:
    """Used on the event loop alone."""

    def __init__(self) -> None:
        self._running: dict[int, _Live] = {}
        self._ended: deque[dict[str, Any]] = deque(maxlen=_ENDED)

    def begin(self, reply: Reply, path: str, client: str) -> None:
        """`client` is what it calls itself."""
        self._running[id(reply)] = _Live(reply, path, client)

    def end(self, reply: Reply) -> None:
        live = self._running.pop(id(reply), None)
        if live is not None:
            self._ended.appendleft(_told(live, running=False))

    def running(self) -> list[dict[str, Any]]:
        """The newest first."""
        return [_told(live, running=True) for live in reversed(self._running.values())]

    def ended(self) -> list[dict[str, Any]]:
        """The newest first."""
        return list(self._ended)


def _told(live: _Live, *, running: bool) -> dict[str, Any]:
    reply, usage, timings = live.reply, live.reply.usage, live.reply.timings
    # What is counted is known at the end; until then a piece of text stands for a token.
    tokens = usage.completion or sum(map(len, reply.texts))
    plan = reply.plan
    return {
        "path": live.path,
        "client": live.client,
        "model": reply.model,
        "route": plan.route.reason,
        "language": plan.route.language,
        "draft": plan.drafting.draft.name if plan.drafting.draft else None,
        "started": reply.created,
        "running": running,
        "prompt_tokens": usage.prompt,
        "cached_tokens": None if running else usage.cached,
        "completion_tokens": tokens,
        "drafted_tokens": usage.accepted + usage.rejected,
        "accepted_tokens": usage.accepted,
        "first_seconds": round(timings.prompt, 3) if tokens else None,
        "tokens_per_second": _rate(tokens, timings.completion),
        "finish": None if running else reply.finish[0],
    }


def _rate(tokens: int, seconds: float) -> float | None:
    """Of the tokens after the first."""
    return round((tokens - 1) / seconds, 1) if tokens > 1 and seconds > 0.001 else None
