"""Recovery curves: what held-out text and problems say, by the tokens that were learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from subllm.measuring.report.canvas import new_figure, png
from subllm.measuring.report.masks.overlay import ALONE
from subllm.measuring.report.tables import Cell, Column, Table, number

_COLOURS = tuple(f"#{r:02x}{g:02x}{b:02x}" for r, g, b in (ALONE[5], ALONE[4], *ALONE[2:4]))


class Point(Protocol):
    """Of a recovery's curve, as the store keeps it (`CurveRecord`)."""

    @property
    def tokens(self) -> int: ...

    @property
    def seconds(self) -> float: ...

    @property
    def loss(self) -> float | None: ...

    @property
    def heldout_kl(self) -> float: ...

    @property
    def agreement(self) -> float: ...


@dataclass(frozen=True)
class Solved:
    """Share of problems solved after so many tokens, with its confidence interval."""

    tokens: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """One recovery. dense: the share of the same problems that the dense base solves."""

    title: str
    points: Sequence[Point]
    solved: Sequence[Solved] = ()
    dense: float | None = None


def table(curves: Sequence[Curve], title: str = "", note: str = "") -> Table:
    """A row for each point; pass@1 where problems were run there."""
    columns = [
        Column("recovery"), number("tokens", ",d"), number("minutes", ".1f"), number("loss", ".3f"),
        number("held-out KL", ".4f"), number("agreement, %", ".2f"), number("pass@1, %", ".1f"),
        Column("95 %"), number("of dense, %", ".0f"),
    ]  # fmt: skip
    rows: list[list[Cell]] = []
    for curve in curves:
        solved = {one.tokens: one for one in curve.solved}
        for point in curve.points:
            one = solved.get(point.tokens)
            kept = 100 * one.value / curve.dense if one and curve.dense else None
            rows.append([
                curve.title, point.tokens, point.seconds / 60, point.loss, point.heldout_kl,
                100 * point.agreement, 100 * one.value if one else None,
                f"{100 * one.low:.0f}-{100 * one.high:.0f}" if one else None, kept,
            ])  # fmt: skip
    return Table(columns, rows, title, note)


def picture(curves: Sequence[Curve], title: str, note: str = "") -> bytes:
    """PNG: tokens to the right, agreement on held-out text above, pass@1 with its interval below
    where any was measured. Raises MissingExtraError without matplotlib."""
    problems = any(curve.solved for curve in curves)
    figure = new_figure(8.0, 6.6 if problems else 4.0)
    axes = figure.subplots(2 if problems else 1, 1, sharex=True, squeeze=False)[:, 0]
    for curve, colour in zip(curves, _COLOURS * len(curves), strict=False):
        tokens = [point.tokens / 1000 for point in curve.points]
        agreement = [100 * point.agreement for point in curve.points]
        axes[0].plot(tokens, agreement, "o-", color=colour, markersize=3.5, label=curve.title)
        if not problems:
            continue
        for one in curve.solved:
            x = one.tokens / 1000
            axes[1].plot([x, x], [100 * one.low, 100 * one.high], "_-", color=colour, alpha=0.5)
        axes[1].plot(
            [one.tokens / 1000 for one in curve.solved],
            [100 * one.value for one in curve.solved],
            "s-", color=colour, markersize=6, label=curve.title,
        )  # fmt: skip
        if curve.dense is not None:
            axes[1].axhline(100 * curve.dense, color=colour, linestyle=":", linewidth=1.2)
    axes[0].set_ylabel("first choice as the dense base's, %")
    axes[0].legend(loc="lower right", fontsize=8)
    if problems:
        axes[1].set_ylabel("pass@1, % (dotted: dense base)")
        axes[1].set_ylim(bottom=0)
    axes[-1].set_xlabel("thousand tokens learned from")
    for axis in axes:
        axis.grid(alpha=0.25)
    axes[0].set_title(title, fontsize=10, loc="left")
    if note:
        figure.supxlabel(note, fontsize=7, x=0.01, ha="left", color="#555555")
    return png(figure)
