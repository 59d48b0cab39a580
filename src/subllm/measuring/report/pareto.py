"""Speed against quality: which ways to serve a model nothing else beats in both.

A way is dominated when another is at least as fast and at least as good, and better in one
of the two; those that are not make the front.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from subllm.measuring.report.canvas import library, new_figure, png
from subllm.measuring.report.masks.overlay import ALONE
from subllm.measuring.report.tables import Cell, Column, Table, number

_COLOURS = tuple(f"#{r:02x}{g:02x}{b:02x}" for r, g, b in (ALONE[4], ALONE[5], *ALONE[2:4]))
_MARKERS = ("s", "o", "D", "^")
_FRONT = "#444444"
_SIZE = 8.0  # points
_LABEL = 8.0
_NEAR = 14.0  # points from which on a label needs a line to its marker, or others are nearer
_FAR = 0.005  # share of a label's area that a point of distance is worth


@dataclass(frozen=True)
class Way:
    """One way to serve a model.

    family   of ways that are drawn alike
    speed    decoded tokens per second; quality: share of problems solved, with `low` and `high`
             of its confidence interval. None where it was not measured
    bytes    of weights read for a token, share: of the machine's read bandwidth that decoding
             makes use of
    """

    title: str
    family: str
    speed: float | None = None
    quality: float | None = None
    low: float | None = None
    high: float | None = None
    bytes: float | None = None
    share: float | None = None

    @property
    def measured(self) -> tuple[float, float] | None:
        """(speed, quality), where both are known."""
        return None if self.speed is None or self.quality is None else (self.speed, self.quality)


def dominates(one: Way, other: Way) -> bool:
    """Whether `one` is nowhere worse than `other` and somewhere better."""
    if one.measured is None or other.measured is None:
        return False
    pairs = list(zip(one.measured, other.measured, strict=True))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def front(ways: Sequence[Way]) -> list[Way]:
    """Those that nothing dominates, from the slowest to the fastest."""
    free = [way for way in ways if way.measured and not any(dominates(o, way) for o in ways)]
    return sorted(free, key=lambda way: way.measured or ())


def statements(ways: Sequence[Way]) -> list[str]:
    """A sentence for the front and one for each way that is dominated, by the way of the front
    that is the fastest of those that dominate it."""
    best = front(ways)
    if not best:
        return []
    said = ["On the front: " + ", ".join(way.title for way in best) + "."]
    for way in ways:
        beaten_by = [other for other in best if dominates(other, way)]
        if not beaten_by:
            continue
        other = beaten_by[-1]
        assert way.measured and other.measured
        times, points = other.measured[0] / way.measured[0], other.measured[1] - way.measured[1]
        inside = way.high is not None and other.measured[1] <= way.high
        doubt = "" if points == 0 else " (inside its interval)" if inside else ""
        said.append(
            f"{way.title} is dominated by {other.title}: {times:.2f} times as fast, "
            f"{100 * points:+.1f} points{doubt}."
        )
    return said


def table(ways: Sequence[Way], reference: str, title: str = "", note: str = "") -> Table:
    """Speeds also as multiples of the way called `reference`."""
    base = next((way.speed for way in ways if way.title == reference), None)
    best = front(ways)
    columns = [
        Column(""), number("tok/s", ".1f"), number("times", ".2f"), number("pass@1, %", ".1f"),
        Column("95 %"), number("MB/token", ".0f"), number("of bandwidth", ".0%"), Column("front"),
    ]  # fmt: skip
    rows: list[list[Cell]] = []
    for way in ways:
        interval = None
        if way.low is not None and way.high is not None:
            interval = f"{100 * way.low:.0f}-{100 * way.high:.0f}"
        rows.append([
            way.title,
            way.speed,
            way.speed / base if way.speed and base else None,
            None if way.quality is None else 100 * way.quality,
            interval,
            None if way.bytes is None else way.bytes / 1e6,
            way.share,
            "yes" if way in best else None,
        ])  # fmt: skip
    return Table(columns, rows, title, note)


def picture(ways: Sequence[Way], title: str, note: str = "") -> bytes | None:
    """PNG: tokens per second to the right, percent solved upwards with its interval, the front
    as a line. None where nothing has both. Raises MissingExtraError without matplotlib."""
    shown = [way for way in ways if way.measured]
    if not shown:
        return None
    figure = new_figure(9.0, 6.4)
    axis = figure.subplots()
    families = list(dict.fromkeys(way.family for way in shown))
    best = front(shown)
    for way in shown:
        assert way.measured
        index = families.index(way.family)
        colour, marker = _COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)]
        x, y = way.measured[0], 100 * way.measured[1]
        if way.low is not None and way.high is not None:
            ends = [100 * way.low, 100 * way.high]
            axis.plot([x, x], ends, "_-", color=colour, linewidth=1, alpha=0.45, markersize=5)
        fill = colour if way in best else "white"
        axis.plot(
            x, y, marker, color=fill, markeredgecolor=colour, markeredgewidth=1.5,
            markersize=_SIZE, zorder=3,
        )  # fmt: skip
    line = [way.measured for way in best if way.measured]
    axis.step(
        [x for x, _ in line], [100 * y for _, y in line], where="pre", color=_FRONT,
        linewidth=1.4, linestyle="--", zorder=1,
    )  # fmt: skip
    axis.set_xlim(0, 1.12 * max(x for x, _ in (way.measured for way in shown if way.measured)))
    low = min(100 * (way.quality if way.low is None else way.low) for way in shown)  # type: ignore[operator]
    high = max(100 * (way.quality if way.high is None else way.high) for way in shown)  # type: ignore[operator]
    margin = 0.06 * max(high - low, 5.0)
    axis.set_ylim(max(0.0, low - margin), min(101.0, high + margin))
    axis.set_xlabel("decoded tokens per second")
    axis.set_ylabel("pass@1, percent of problems solved")
    axis.grid(alpha=0.25)
    axis.legend(handles=_legend(families), loc="lower left", fontsize=_LABEL, framealpha=0.9)
    axis.set_title(title, fontsize=10, loc="left")
    if note:
        figure.supxlabel(note, fontsize=7, x=0.01, ha="left", color="#555555")
    _label(figure, axis, shown, families)
    return png(figure)


def _legend(families: Sequence[str]) -> list[Any]:
    line2d = library("matplotlib.lines").Line2D
    handles = [
        line2d([], [], marker=_MARKERS[i % len(_MARKERS)], color=_COLOURS[i % len(_COLOURS)],
               linewidth=0, markersize=_SIZE, label=family)
        for i, family in enumerate(families)
    ]  # fmt: skip
    handles.append(line2d([], [], color=_FRONT, linestyle="--", label="front (filled)"))
    return handles


Box = tuple[float, float, float, float]
"""Left, bottom, right, top, in pixels."""


def _label(figure: Any, axis: Any, shown: Sequence[Way], families: Sequence[str]) -> None:
    """The title of each beside its marker."""
    figure.canvas.draw()  # lays the axis out, so that pixels are known
    figure.set_layout_engine("none")  # labels must not move the axis that they are placed on
    scale = figure.dpi / 72
    half = (_SIZE / 2 + 1) * scale
    anchors: list[tuple[float, float]] = []
    taken = [_box(axis.get_legend())]
    for way in shown:
        assert way.measured
        x, y = axis.transData.transform((way.measured[0], 100 * way.measured[1]))
        anchors.append((x, y))
        taken.append((x - half, y - half, x + half, y + half))
        if way.low is not None and way.high is not None:
            (_, low), (_, high) = (
                axis.transData.transform((way.measured[0], 100 * end))
                for end in (way.low, way.high)
            )
            taken.append((x - 2 * scale, low, x + 2 * scale, high))
    corners = [anchors[list(shown).index(way)] for way in front(shown)]
    for (left, top), (right, bottom) in itertools.pairwise(corners):
        taken.append((left - scale, bottom - scale, left + scale, top + scale))
        taken.append((left, bottom - 2 * scale, right, bottom + 2 * scale))
    texts = [figure.text(0, 0, way.title, fontsize=_LABEL) for way in shown]
    sizes = [(box[2] - box[0], box[3] - box[1]) for box in map(_box, texts)]
    for text in texts:
        text.remove()
    boxes = places(anchors, sizes, taken, _box(axis), scale)
    for way, (x, y), box in zip(shown, anchors, boxes, strict=True):
        colour = _COLOURS[families.index(way.family) % len(_COLOURS)]
        others = (_distance(box, *other) for other in anchors if other != (x, y))
        far = _distance(box, x, y) > min(_NEAR * scale, *others, math.inf)
        axis.annotate(
            way.title, (x, y), box[:2], fontsize=_LABEL, color=colour,
            xycoords="figure pixels", textcoords="figure pixels", ha="left", va="bottom",
            bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.5},
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6} if far else None,
        )  # fmt: skip


def _distance(box: Box, x: float, y: float) -> float:
    """From the point to the nearest of the box."""
    return math.hypot(max(box[0] - x, 0.0, x - box[2]), max(box[1] - y, 0.0, y - box[3]))


def _box(artist: Any) -> Box:
    extent = artist.get_window_extent()
    return extent.x0, extent.y0, extent.x1, extent.y1


def places(
    anchors: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    taken: Sequence[Box],
    inside: Box,
    scale: float,
) -> list[Box]:
    """A box of each size (width, height) near its anchor, one after the other where it covers
    little of `taken` and of those before, sticks little out of `inside` and is not far away.
    scale: pixels per point."""
    found: list[Box] = []
    for (x, y), (width, height) in zip(anchors, sizes, strict=True):
        area = width * height

        def cost(place: tuple[float, Box], area: float = area) -> float:
            away, box = place
            covered = sum(_overlap(box, other) for other in taken)
            hidden = sum(_overlap(box, other) for other in found)
            outside = area - _overlap(box, inside)
            return covered + 4 * hidden + 4 * outside + _FAR * away * area

        found.append(min(_around(x, y, width, height, scale), key=cost)[1])
    return found


def _around(
    x: float, y: float, width: float, height: float, scale: float
) -> list[tuple[float, Box]]:
    """(points away, box of that size) around (x, y), the nearest and handiest first."""
    boxes = []
    for away in (9.0, 16.0, 26.0, 38.0, 52.0, 68.0):
        gap = away * scale
        for right, up in ((1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1)):
            left = x + gap if right > 0 else x - gap - width if right < 0 else x - width / 2
            bottom = y - height / 2 + up * gap
            boxes.append((away, (left, bottom, left + width, bottom + height)))
    return boxes


def _overlap(one: Box, two: Box) -> float:
    width = min(one[2], two[2]) - max(one[0], two[0])
    height = min(one[3], two[3]) - max(one[1], two[1])
    return max(width, 0.0) * max(height, 0.0)
