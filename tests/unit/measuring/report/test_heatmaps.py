"""Heat maps are read back pixel by pixel: the colour in the middle of a cell is the value's."""

from __future__ import annotations

import io
import sys
from itertools import pairwise

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from subllm.errors import MissingExtraError
from subllm.measuring.report.heatmaps import COLOURS, Panel, heatmaps
from subllm.measuring.report.masks.pictures import layers_picture, models_picture, types_picture

from .samples import five, two

PNG = b"\x89PNG\r\n\x1a\n"


def runs(picture: bytes) -> list[list[tuple[int, int, int]]]:
    """For every line of pixels the colours that stand there for 8 pixels or more, in order."""
    pixels = (imread(io.BytesIO(picture))[:, :, :3] * 255).round().astype(int)
    found = []
    for line in pixels:
        edges = [0, *(np.flatnonzero(np.any(np.diff(line, axis=0), axis=1)) + 1), len(line)]
        colours = [tuple(line[a].tolist()) for a, b in pairwise(edges) if b - a >= 8]
        found.append([c for c in colours if c != (255, 255, 255)])
    return found


def colour(value: float, low: float, high: float) -> tuple[int, int, int]:
    shade = matplotlib.colormaps[COLOURS]((value - low) / (high - low))
    return tuple(round(part * 255) for part in shade[:3])


def near(a: tuple[int, int, int], b: tuple[int, int, int]) -> bool:
    return max(abs(x - y) for x, y in zip(a, b, strict=True)) <= 3


def holds(lines: list[list[tuple[int, int, int]]], expected: list[tuple[int, int, int]]) -> bool:
    """Whether some line begins with these colours (the colour bar follows them)."""
    return any(
        len(line) >= len(expected) and all(map(near, line, expected)) for line in lines
    )  # fmt: skip


def test_every_cell_has_the_colour_of_its_value() -> None:
    values = np.array([[0.0, 0.25, 0.6], [1.0, 0.75, 0.4]])
    panel = Panel("a panel", values, ["first", "second"], ["x", "y", "z"])
    picture = heatmaps([panel], title="title", scale="share")
    assert picture.startswith(PNG)
    lines = runs(picture)
    for row in values:
        assert holds(lines, [colour(value, 0, 1) for value in row])
    assert not holds(lines, [colour(value, 0, 1) for value in values[0][::-1]])


def test_panels_share_one_scale() -> None:
    def panel(*values: float) -> Panel:
        return Panel("p", np.array([values]), ["r"], [str(i) for i in range(len(values))])

    picture = heatmaps([panel(0.2, 0.3), panel(0.9, 0.7)], title="t", scale="s")
    lines = runs(picture)
    assert holds(lines, [colour(0.2, 0.2, 0.9), colour(0.3, 0.2, 0.9)])
    assert holds(lines, [colour(0.9, 0.2, 0.9), colour(0.7, 0.2, 0.9)])
    wider = heatmaps([panel(0.2, 0.3)], title="t", scale="s", limits=(0.0, 1.0))
    assert holds(runs(wider), [colour(0.2, 0, 1), colour(0.3, 0, 1)])


@pytest.mark.parametrize("values", [[[np.nan, 0.5]], [[np.nan, np.nan]], [[0.5, 0.5]]])
def test_empty_cells_and_equal_values_can_be_drawn(values: list[list[float]]) -> None:
    panel = Panel("p", np.array(values), ["r"], ["a", "b"])
    assert heatmaps([panel], title="t", scale="s", form=".2f").startswith(PNG)


def test_the_same_values_give_the_same_bytes() -> None:
    assert types_picture(two()) == types_picture(two())
    assert types_picture(two()) != types_picture(five())


def test_labels_must_fit_the_values() -> None:
    with pytest.raises(ValueError, match="under labels"):
        Panel("p", np.zeros((2, 3)), ["a", "b"], ["x", "y"])


def test_pairs_by_type() -> None:
    low, high = 0.25, 1 - 300 / 700
    assert holds(runs(types_picture(two())), [colour(high, low, high), colour(low, low, high)])


def test_pairs_by_layer() -> None:
    lines = runs(layers_picture(two()))
    high = 2 / 3
    # The panel of all types begins the line, that of q stands beside it, k below.
    first = [1 - 328 / 528, 1 - 164 / 428, 0.5, high]
    assert holds(lines, [colour(value, 0, high) for value in first])
    assert holds(lines, [colour(value, 0, high) for value in (0, 0.5)])


def test_models_with_each_other_but_the_dense_one() -> None:
    lines = runs(models_picture(five()))
    high = 2 / 3
    python = [0, high, 0.4]
    assert holds(lines, [colour(value, 0, high) for value in python])  # itself stays empty
    assert holds(lines, [colour(value, 0, high) for value in (high, high, high)])  # java


@pytest.mark.parametrize("module", ["matplotlib.figure", "matplotlib.backends.backend_agg"])
def test_without_matplotlib_the_message_says_what_to_install(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"run: pip install 'subllm\[report\]'") as caught:
        models_picture(two())
    assert caught.value.exit_code == 2
