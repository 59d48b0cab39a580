"""Where the filling of a hole ends."""

from __future__ import annotations

import random
import time

import pytest
from oracles.fillings import filled

from subllm.models.text.hole_end import TELLING, Hole, HoleEnd

BLOCK = "        return smallest_of_all(numbers)\n    return None\n"


@pytest.mark.parametrize(
    ("line", "after", "filling", "shown"),
    [
        # At a line's start: what follows is not said again.
        ("", BLOCK, "    a = 1\n" + BLOCK + "\ndef f():", "    a = 1\n"),
        ("", BLOCK, "    a = 1\n\n" + BLOCK, "    a = 1\n\n"),
        ("", BLOCK, BLOCK, ""),
        # At a line's end: nor are the blank lines before it.
        ("x = ", "\n\n" + BLOCK, "1\n\n" + BLOCK, "1"),
        ("x = ", "\n\n" + BLOCK, "1\n" + BLOCK + "more", "1"),
        # On a line that is indented and else empty.
        ("    ", "\n" + BLOCK, "a = 1\n" + BLOCK, "a = 1"),
        ("        ", "\n" + BLOCK, BLOCK.lstrip(), ""),
        # Before text that goes on in the line: indented, it keeps its indentation.
        ("        ", BLOCK.lstrip(), "a = 1\n" + BLOCK, "a = 1\n        "),
        ("        ", BLOCK.lstrip(), BLOCK.lstrip(), ""),
        # Inside a line: the rest of it with the line after.
        ("f(", ")\n" + BLOCK, "g(a), b)\n" + BLOCK, "g(a), b"),
        ("f(", ")\n" + BLOCK, "g(a))", None),
        ("f(", ")\n" + BLOCK, "a)\n    b = 2\n", None),
        # Other spaces behind a line, other blank lines.
        ("", BLOCK, "    a = 1\n" + BLOCK.replace("\n", "  \n\n"), "    a = 1\n"),
        # Another indentation is another line.
        ("", BLOCK, "    a = 1\n" + BLOCK.replace("    return", "return"), None),
        # Cut short while it repeats: known lines are not shown, the begin of one is.
        ("", BLOCK, "    a = 1\n        return smallest_of_all(numbers)\n    ret", "    a = 1\n"),
        ("", BLOCK, "    a = 1\n        return sma", None),
        # Lines that say little are no end by themselves, but they are at the end.
        ("", "    }\n    else_branch_of_it();\n", "    a();\n    }\n    b();\n", None),
        ("", "    }\n    else_branch_of_it();\n", "    a();\n    }\n", "    a();\n"),
        ("", "    }\n}\n", "    a();\n    }\n}\nint main() {", "    a();\n"),
        # Nothing follows.
        ("", "", "    a = 1\n", None),
        ("x = ", "\n \n", "1\n\n", None),
    ],
)
def test_by_hand(line: str, after: str, filling: str, shown: str | None) -> None:
    """None: all of it is shown."""
    expected = (filling, False) if shown is None else (shown, True)
    assert filled(Hole(line, after), [filling]) == expected
    assert filled(Hole(line, after), list(filling)) == expected


def test_text_is_held_back_no_longer_than_it_has_to_be() -> None:
    hole = Hole("x = ", "\n    return x\n")
    end = HoleEnd(hole)
    assert end.push("1 + ") == ("1 +", False)
    assert end.push("2") == (" 2", False)
    end = HoleEnd(hole)
    assert end.push("1\n    re") == ("1", False)
    assert end.push("peat()") == ("\n    repeat()", False)


@pytest.mark.parametrize("hole", [Hole("x = ", "\n    return x\n"), Hole("", "    return x\n")])
def test_blank_lines_without_end_cost_no_time(hole: Hole) -> None:
    """The engine's thread waits for it with every token, and models do write so."""
    end, began = HoleEnd(hole), time.perf_counter()
    shown = "".join(end.push(piece)[0] for piece in ["\n", "  \n"] * 5000)
    assert time.perf_counter() - began < 5
    assert shown + end.finish()[0] == "\n  \n" * 5000


def test_nothing_comes_after_the_end() -> None:
    end = HoleEnd(Hole("", BLOCK))
    assert end.push("a\n" + BLOCK) == ("a\n", True)
    assert end.push("b") == ("", True)
    assert end.finish() == ("", False)


def known(after: str) -> list[str]:
    lines: list[str] = []
    for line in after.splitlines():
        if line.strip():
            lines.append(line.rstrip())
            if sum(map(str.isalnum, "".join(lines))) >= TELLING or len(lines) == 3:
                break
    return lines


def reference(after: str, filling: str) -> tuple[str, bool]:
    """Of a hole at a line's start, from the whole of a filling, line by line."""
    looked_for = known(after)
    lines = filling.split("\n")
    said = [number for number, line in enumerate(lines) if line.strip()]
    for first in range(len(said) if looked_for else 0):
        begun = said[first : first + len(looked_for)]
        same = 0
        while same < len(begun) and lines[begun[same]].rstrip() == looked_for[same]:
            same += 1
        rest = lines[begun[same]] if same < len(begun) else ""
        whole = same == len(looked_for) and begun[same - 1] < len(lines) - 1
        last = first + same >= len(said) - bool(rest)
        if whole or (
            same and last and looked_for[same - (same == len(looked_for))].startswith(rest)
        ):
            return "".join(f"{line}\n" for line in lines[: said[first]]), True
    return filling, False


def test_against_the_reference_in_any_pieces() -> None:
    """Texts of few lines, so that much is said twice."""
    draw = random.Random(0)
    lines = ["    a = 1", "    }", "}", "", "    return None  # of all", "  ", "    a = 1 "]
    cuts = 0
    for _ in range(4000):
        after = "".join(draw.choice(lines) + "\n" for _ in range(draw.randint(0, 4)))
        if not after.partition("\n")[0].strip():  # a line's end, where blank lines go too
            after = "    return None  # of all\n" + after
        filling = "".join(draw.choice(lines) + "\n" for _ in range(draw.randint(0, 6)))
        filling = filling[: draw.randint(0, len(filling))]
        pieces, at = [], 0
        while at < len(filling):
            size = draw.randint(1, 9)
            pieces.append(filling[at : at + size])
            at += size
        found = filled(Hole("", after), pieces)
        assert found == reference(after, filling), (after, pieces)
        cuts += found[1]
    assert 400 < cuts < 3600
