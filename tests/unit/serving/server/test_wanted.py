"""Languages without a sub-model that are asked for often."""

from __future__ import annotations

from collections.abc import Callable

from subllm.serving.server.wanted import OFTEN, WITHIN, WantedLanguages
from unit.serving.server.connections import COMPLETIONS
from unit.serving.server.tiny import BASE, PYTHON, Live, live, shelf


class Extractions:
    """Those that were begun; the last runs on while `runs`."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, str]] = []
        self.runs = True
        self.now = 0.0
        self.wanted = WantedLanguages(
            self.begin, lambda: ("javascript", "rust"), clock=lambda: self.now
        )

    def begin(self, language: str, base: str) -> Callable[[], bool]:
        self.begun.append((language, base))
        return lambda: self.runs


def ask(running: Live, times: int, **body: object) -> None:
    for _ in range(times):
        reply = running.post(COMPLETIONS, prompt="x", max_tokens=0, **body)
        assert reply.status_code == 200


def test_what_is_asked_for_often_is_extracted_once() -> None:
    extractions = Extractions()
    with live(shelf(), planned=extractions.wanted.saw) as running:
        ask(running, OFTEN - 1, model="auto", language="javascript")
        assert extractions.begun == []
        # None of these is a language that the server chose a model for and has no sub-model of.
        ask(running, OFTEN, model=PYTHON, language="javascript")
        ask(running, OFTEN, model="auto", language="java")
        ask(running, OFTEN, model="auto", language="cobol")
        assert extractions.begun == []
        ask(running, 1, model="auto", language="javascript")
        assert extractions.begun == [("javascript", BASE)]
        ask(running, 2 * OFTEN, model="auto", language="javascript")
        assert len(extractions.begun) == 1


def test_one_at_a_time_and_not_by_old_requests() -> None:
    extractions = Extractions()
    with live(shelf(), planned=extractions.wanted.saw) as running:
        ask(running, OFTEN, model="auto", language="javascript")
        ask(running, OFTEN + 5, model="auto", language="rust")
        assert len(extractions.begun) == 1  # the first runs
        extractions.runs = False
        extractions.now = WITHIN + 1
        ask(running, OFTEN - 1, model="auto", language="rust")
        assert len(extractions.begun) == 1  # the others are too long ago
        ask(running, 1, model="auto", language="rust")
        assert extractions.begun[1:] == [("rust", BASE)]
