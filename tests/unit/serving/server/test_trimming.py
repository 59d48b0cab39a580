"""Completions that end by indentation, time or at once."""

from __future__ import annotations

import pytest

from subllm.engine.request import TokenEvent
from subllm.errors import EngineError
from subllm.serving.server.trimming import Trim, Trimmer


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def run(trim: Trim, pieces: list[str], *, ends: bool = True) -> tuple[str, int]:
    """The text that comes through, and how many events it took."""
    trimmer, text = Trimmer(trim), ""
    for number, piece in enumerate(pieces, 1):
        last = ends and number == len(pieces)
        event = trimmer(TokenEvent("1", piece, finish_reason="stop" if last else None))
        text += event.text
        if event.finish_reason is not None:
            return text, number
    return text, len(pieces)


@pytest.mark.parametrize(
    ("indent", "text", "kept"),
    [
        (4, "x = 1\n    y\n  z\n", "x = 1\n    y\n"),
        (4, "x\n    y", "x\n    y"),
        (4, "x\n\n    y", "x\n"),  # an empty line is not indented
        (4, "x\n  ", "x\n  "),  # the end comes before the line has shown its indentation
        (1, "x\n\ty\nz", "x\n\ty\n"),
        (0, "x\ny\n", "x\ny\n"),
    ],
)
def test_a_line_that_is_indented_less_ends_it(indent: int, text: str, kept: str) -> None:
    for size in (1, 2, 100):
        pieces = [text[i : i + size] for i in range(0, len(text), size)]
        assert run(Trim(indent=indent), pieces)[0] == kept


def test_time_ends_it_after_a_line() -> None:
    clock = Clock()
    trimmer = Trimmer(Trim(seconds=0.5), clock)
    for text, now, finish in (("a", 0.0, None), ("b", 9.0, None), ("\n", 9.1, "length")):
        clock.now = now
        assert trimmer(TokenEvent("1", text)).finish_reason == finish


def test_a_warm_up_has_no_text_and_failures_pass() -> None:
    trimmer = Trimmer(Trim(warm_up=True))
    event = trimmer(TokenEvent("1", "a", (97,), completion_tokens=1, cached_tokens=5))
    assert (event.text, event.tokens, event.completion_tokens) == ("", (), 0)
    assert (event.finish_reason, event.cached_tokens) == ("length", 5)
    failure = TokenEvent("1", "", finish_reason="error", error=EngineError("broken"))
    assert trimmer(failure) is failure
