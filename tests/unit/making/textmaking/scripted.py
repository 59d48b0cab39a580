"""An engine that writes what a script says, in pieces, to tell what is made of it; and the
byte-level tokenizer that goes with it."""

from __future__ import annotations

import json
from collections.abc import Callable

from oracles import tiny_models

from subllm.engine.request import Request, TokenEvent
from subllm.models.text.tokenizer import Tokenizer

TEMPLATE = "{% for m in messages %}<|mark|>{{ m.content }}<|fill|>\\n{% endfor %}"


def tokenizer(template: str | None = TEMPLATE) -> Tokenizer:
    bundle = json.loads(tiny_models.tokenizer().to_bundle())
    bundle["facts"]["chat_template"] = template
    return Tokenizer.from_bundle(json.dumps(bundle).encode())


class ScriptedEngine:
    """`script` maps a request to (text, whether it ends by itself). Each step gives every running
    request `piece` characters, a token each."""

    def __init__(self, script: Callable[[Request], tuple[str, bool]], piece: int = 16) -> None:
        self.most = 0
        self.asked: list[Request] = []
        self.aborted: list[str] = []
        self._script, self._piece = script, piece
        self._running: dict[str, tuple[Request, int]] = {}

    def add(self, request: Request) -> None:
        self.asked.append(request)
        self._running[request.id] = (request, 0)
        self.most = max(self.most, len(self._running))

    def abort(self, request_id: str) -> None:
        if self._running.pop(request_id, None):
            self.aborted.append(request_id)

    def step(self) -> list[TokenEvent]:
        events = []
        for identity, (request, at) in list(self._running.items()):
            text, ends = self._script(request)
            end = at + self._piece
            over = end >= len(text)
            reason = ("stop" if ends else "length") if over else None
            events.append(
                TokenEvent(identity, text[at:end], finish_reason=reason, completion_tokens=end)
            )
            self._running[identity] = (request, end)
            if over:
                del self._running[identity]
        return events

    def has_work(self) -> bool:
        return bool(self._running)

    def close(self) -> None:
        self._running.clear()
