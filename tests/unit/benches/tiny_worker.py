"""A worker whose model knows one text: tiny_worker.py TEXT LOG THREADS LONGEST TOGETHER.

A character is a token; a step gives two, so that rules must cut what came too much, and eight
with drafts, which change the text where they are called "bad". LOG gets a line for every
completion that was asked for. A request for more than 1,000 tokens fails.
"""

from __future__ import annotations

import sys
from pathlib import Path

from completing import completions
from worker import own_output, serve

from subllm.engine.request import Request, TokenEvent


class OneText:
    def __init__(self, text: str, tokens: int) -> None:
        self._text = text
        self._tokens = tokens
        self._at: dict[str, int] = {}
        self._most: dict[str, int] = {}

    def add(self, request: Request) -> None:
        if request.params.max_tokens > 1000:
            raise ValueError("no room")
        self._at[request.id] = 0
        self._most[request.id] = min(request.params.max_tokens, len(self._text))

    def step(self) -> list[TokenEvent]:
        events = []
        for name, at in list(self._at.items()):
            for place in range(at, min(at + self._tokens, self._most[name])):
                ended = place + 1 == self._most[name]
                letter = self._text[place]
                finish = "stop" if ended else None
                events.append(TokenEvent(name, letter, (ord(letter),), finish_reason=finish))
                self._at[name] = place + 1
                if ended:
                    del self._at[name]
                    break
        return events

    def abort(self, request_id: str) -> None:
        self._at.pop(request_id, None)


def main() -> None:
    text, log = sys.argv[1], Path(sys.argv[2])

    def complete(asks, together=1, drafts=""):
        with log.open("a") as file:
            file.writelines(f"{one['id']} {drafts}\n" for one in asks)
        engine = OneText(text.upper() if drafts == "bad" else text, 8 if drafts else 2)
        yield from completions(engine, asks, together)
        if drafts:
            yield {"drafts": {"draft drafted": 7, "draft accepted": 6}}

    measures = {"complete": complete, "forget": lambda: None}
    serve(own_output(), sys.stdin, measures, {"tiny": True})


if __name__ == "__main__":
    main()
