"""Where the filling of a hole leaves its block."""

from __future__ import annotations

import random
import time
from itertools import pairwise

import pytest
from oracles.fillings import filled

from subllm.models.text.block_end import BlockEnd, may_be_outdented
from subllm.models.text.hole_end import Hole

ABOVE = "    total = 0"
BELOW = "    return total"


@pytest.mark.parametrize(
    ("above", "line", "after", "filling", "shown"),
    [
        # At a line's start, and on a line that is indented already: with a function, it is over.
        (ABOVE, "", f"{BELOW}\n", "    a()\n\n\ndef g():\n    b()\n", "    a()\n"),
        (ABOVE, "    ", f"\n{BELOW}\n", "a()\n\n\ndef g():\n    b()\n", "a()"),
        (ABOVE, "    ", f"\n{BELOW}\n", "a()\nprint(g(", "a()"),
        # At a line's end, inside a line, before the rest of an indented one.
        (ABOVE, "    a = ", f"\n{BELOW}\n", "b()\n\n# Tests\n", "b()"),
        (ABOVE, "    a = f(", f")\n{BELOW}\n", "b,\n        c\n}\n", "b,\n        c"),
        (ABOVE, "    ", "return total\n", "a()\n\nb()\n", "a()\n    "),
        (ABOVE, "", f"{BELOW}\n", "    a()\nb()", "    a()\n"),
        # As far out as the line above, or as the line below, it goes on.
        ("        if a:", "", f"{BELOW}\n", "            b()\n    c()\n", None),
        (ABOVE, "", "            b()\n", "    for a in c:\n        if a:\n", None),
        ("        if a:", "", f"{BELOW}\n", "            b()\nc()\n", "            b()\n"),
        # As far out as its own first line: that one is not judged.
        (ABOVE, "", f"{BELOW}\n", "a()\nb()\n", None),
        # Nothing is around it, or not indented.
        ("", "", f"{BELOW}\n", "    a()\nb()\n", None),
        (ABOVE, "", "", "    a()\nb()\n", None),
        (ABOVE, "", "def g(): ...\n", "    a()\nb()\n", None),
        # Tabs and spaces are not compared.
        ("\ta();", "", "    b();\n", "\tc();\nd();\n", None),
        ("\ta();", "", "\t  b();\n", "\tc();\nd();\n", "\tc();\n"),
        ("\t\ta();", "", "\t\tb();\n", "\t\tc();\n\td();\n", "\t\tc();\n"),
        # What many outdent: directives, labels, cases; not Python's comments, not other blocks.
        (ABOVE, "", f"{BELOW}\n", "    a();\n#ifdef B\n    b();\n#endif\n", None),
        (ABOVE, "", f"{BELOW}\n", "    a();\nout:\n    b();\n", None),
        (ABOVE, "", f"{BELOW}\n", "    a();\n  case 1 + 1:\n  default: b();\n", None),
        (ABOVE, "", f"{BELOW}\n", "    a()\n# Example\n", "    a()\n"),
        (ABOVE, "", f"{BELOW}\n", "    a()\nelse:\n    b()\n", "    a()\n"),
        # Cut short in what may be a label.
        (ABOVE, "", f"{BELOW}\n", "    a();\nou", "    a();\n"),
        (ABOVE, "", f"{BELOW}\n", "    a();\nout:", None),
        # It says again what follows before it leaves.
        (ABOVE, "    ", f"\n{BELOW}\n", f"a()\n{BELOW}\n\ndef g():", "a()"),
        (ABOVE, "    ", "\n    }\n    b();\n", "a();\n    }\n}\nint c;", "a();"),
    ],
)
def test_by_hand(above: str, line: str, after: str, filling: str, shown: str | None) -> None:
    """None: all of it is shown."""
    hole = Hole(line, after, above)
    expected = (filling, False) if shown is None else (shown, True)
    assert filled(hole, [filling]) == expected
    assert filled(hole, list(filling)) == expected


def test_the_line_above_is_the_last_that_is_not_blank() -> None:
    assert Hole.between("a\n    b\n  \n\n  c", "d") == Hole("  c", "d", "    b")
    assert Hole.between("c", "d") == Hole("c", "d", "")


@pytest.mark.parametrize("line", ["#", "#i", "#if A", "#else", "out", "out :", "case A::B:\n"])
def test_what_may_be_outdented(line: str) -> None:
    assert may_be_outdented(line)


@pytest.mark.parametrize("line", ["# if", "#!", "out\n", "out()", "else:", "finally:", "a b", "}"])
def test_what_may_not(line: str) -> None:
    assert not may_be_outdented(line)


def test_blank_lines_without_end_cost_no_time() -> None:
    end, began = BlockEnd("    ", ABOVE, BELOW), time.perf_counter()
    shown = "".join(end.push(piece)[0] for piece in ["a\n", *["\n", "  \n"] * 5000])
    assert time.perf_counter() - began < 2
    assert (shown, end.finish()) == ("a", ("\n" + "\n  \n" * 5000, False))


def reference(above: str, below: str, filling: str) -> tuple[str, bool]:
    """Of a hole at a line's start, from all of its lines."""
    lines = filling.split("\n")
    said = [number for number, line in enumerate(lines) if line.strip()]
    around = [above, below, *(lines[number] for number in said[:1])]
    width = min(len(line) - len(line.lstrip()) for line in around)
    for before, number in pairwise(said):
        line = lines[number]
        if len(line) - len(line.lstrip()) < width and not line.strip().startswith("label"):
            return "\n".join(lines[: before + 1]).rstrip(" "), True
    return filling, False


def test_against_the_reference_in_any_pieces() -> None:
    draw, cuts = random.Random(0), 0
    lines = ["a()", "  b()", "    c()", "      d()", "", "  ", "label:", "  label: "]
    for _ in range(4000):
        above, below = (draw.choice(["", "   ", "    ", "      "]) + "x" for _ in range(2))
        filling = "".join(draw.choice(lines) + "\n" for _ in range(draw.randint(0, 7)))
        end, shown, over, at = BlockEnd("", above, below), "", False, 0
        while at < len(filling) and not over:
            size = draw.randint(1, 9)
            text, over = end.push(filling[at : at + size])
            shown, at = shown + text, at + size
        if not over:
            text, over = end.finish()
            shown += text
        shown = shown.rstrip(" ") if over else shown  # spaces at its end may have been shown
        assert (shown, over) == reference(above, below, filling), (above, below, filling)
        cuts += over
    assert 400 < cuts < 3600
