"""Fillings of holes, as they come."""

from __future__ import annotations

from subllm.models.text.hole_end import Hole, HoleEnd


def filled(hole: Hole, pieces: list[str], *, ends: bool = True) -> tuple[str, bool]:
    """What is shown of a filling that comes in pieces, and whether it was cut."""
    end, shown = HoleEnd(hole), ""
    for piece in pieces:
        text, over = end.push(piece)
        shown += text
        if over:
            return shown, True
    if not ends:
        return shown, False
    text, over = end.finish()
    return shown + text, over
