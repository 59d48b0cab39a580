from __future__ import annotations

import itertools
import random
import struct

import pytest

from subllm.measuring.report import pareto
from subllm.measuring.report.pareto import Way, dominates, front, picture, places, statements, table


def way(title: str, speed: float | None, quality: float | None, spread: float = 0.05) -> Way:
    low, high = (None, None) if quality is None else (quality - spread, quality + spread)
    return Way(title, title.partition(" ")[0], speed, quality, low, high, 2e6, 0.5)


SLOW_GOOD = way("a good", 10.0, 0.5)
FAST_BAD = way("b fast", 40.0, 0.2)
MIDDLE = way("b middle", 20.0, 0.4)
BEATEN = way("a beaten", 10.0, 0.4)
UNKNOWN = way("a unknown", 100.0, None)
ALL = [SLOW_GOOD, BEATEN, FAST_BAD, UNKNOWN, MIDDLE]


def test_the_front_is_what_nothing_beats() -> None:
    assert front(ALL) == [SLOW_GOOD, MIDDLE, FAST_BAD]
    assert front([]) == front([UNKNOWN]) == []


def test_equals_do_not_dominate_each_other() -> None:
    twin = way("twin", 10.0, 0.5)
    assert not dominates(SLOW_GOOD, twin) and not dominates(twin, SLOW_GOOD)
    assert len(front([SLOW_GOOD, twin])) == 2
    assert dominates(SLOW_GOOD, BEATEN)  # as fast, and better
    assert not dominates(UNKNOWN, BEATEN) and not dominates(BEATEN, UNKNOWN)


@pytest.mark.parametrize("seed", range(20))
def test_every_way_is_on_the_front_or_dominated_by_one_of_it(seed: int) -> None:
    chance = random.Random(seed)
    ways = [way(f"{n}", chance.randint(1, 6), chance.randint(0, 6) / 6) for n in range(12)]
    best = front(ways)
    for one in ways:
        assert (one in best) != any(dominates(other, one) for other in best)
    rates = [one.speed for one in best]
    assert rates == sorted(rates, key=lambda rate: rate or 0)


def test_what_dominates_what_is_said_plainly() -> None:
    said = statements(ALL)
    assert said == [
        "On the front: a good, b middle, b fast.",
        "a beaten is dominated by b middle: 2.00 times as fast, +0.0 points.",
    ]
    doubt = statements([SLOW_GOOD, way("a near", 5.0, 0.48)])
    assert doubt[1].endswith("2.00 times as fast, +2.0 points (inside its interval).")
    assert statements([UNKNOWN]) == []


def test_the_table_compares_with_its_reference() -> None:
    made = table(ALL, "b middle")
    by_title = {row[0]: row for row in made.rows}
    assert by_title["b fast"][1:4] == [40.0, 2.0, 20.0]
    assert by_title["b fast"][4:] == ["15-25", 2.0, 0.5, "yes"]
    assert by_title["a unknown"][3:5] == [None, None]
    assert by_title["a beaten"][-1] is None
    assert table(ALL, "nobody").rows[0][2] is None


def test_the_picture_is_one_and_the_same_for_the_same_figures() -> None:
    pytest.importorskip("matplotlib")
    png = picture(ALL, "title", "note")
    assert png is not None and png.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", png[16:24])
    assert width > 800 and height > 500
    assert picture(ALL, "title", "note") == png
    assert picture([SLOW_GOOD], "one is enough") is not None
    assert picture([UNKNOWN], "nothing to show") is None


def test_labels_do_not_cover_each_other_though_their_markers_do() -> None:
    anchors = [(300.0 + 4 * n, 300.0 - 3 * n) for n in range(6)]
    sizes = [(120.0, 14.0)] * 6
    markers = [(x - 7, y - 7, x + 7, y + 7) for x, y in anchors]
    found = places(anchors, sizes, markers, (0.0, 0.0, 600.0, 600.0), 1.5)
    for one, two in itertools.combinations(found, 2):
        assert pareto._overlap(one, two) == 0
    for box in found:
        assert box[0] >= 0 and box[2] <= 600 and box[1] >= 0 and box[3] <= 600


def test_a_label_at_the_edge_stays_inside() -> None:
    (box,) = places([(595.0, 300.0)], [(120.0, 14.0)], [], (0.0, 0.0, 600.0, 600.0), 1.5)
    assert box[2] <= 600
