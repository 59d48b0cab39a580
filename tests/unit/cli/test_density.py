"""`extract --budget` and `--keep`, and how `show` draws what came of them."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import pytest

from subllm.cli.density import draw
from subllm.models.store.store import Store

from .samples import Ran
from .tiny_store import BASE, LAYERS

Command = Callable[..., Ran]
NAME = f"{BASE}-python"


@pytest.fixture
def extract(tmp_path, subllm: Command) -> Command:
    for number in range(80):
        lines = [f"def twice_{number}_{i}(value):\n    return value * {i}\n" for i in range(20)]
        (tmp_path / "code").mkdir(exist_ok=True)
        (tmp_path / "code" / f"module_{number}.py").write_text("\n".join(lines))
    options = ["--base", BASE, "--calibration", str(tmp_path / "code"), "calibration.samples=4"]
    return lambda *more: subllm("extract", "python", *more, *options, "calibration.seq_len=64")


def test_a_budget_is_kept_and_drawn(tiny: Store, extract: Command, subllm: Command) -> None:
    ran = extract("prune.budget=0.8", "--json")
    assert ran.status == 0, ran.err
    assert "measuring what each group of matrices is worth to python" in ran.err
    assert "of the bytes that dense int8 reads for a token" in ran.err
    assert 0.7 < ran.json["bytes_share"] <= 0.8
    assert (ran.json["budget"], ran.json["keep"]) == (0.8, None)
    assert 0 < ran.json["expected_agreement"] < 1
    found = ran.json["patterns"]
    assert len(found) == LAYERS and set(found[0]) == {"q", "k", "v", "o", "gate", "up", "down"}
    assert len({pattern for layer in found for pattern in layer.values()}) > 1
    assert ran.json["pattern"].startswith("mixed-")

    shown = subllm("show", NAME).out.splitlines()
    drawn = shown[shown.index("") + 1 :]
    assert drawn[0] == "what each matrix keeps; a column is a layer, the first on the left"
    rows = [line.split() for line in drawn[1:8]]
    assert [row[0] for row in rows] == ["q", "k", "v", "o", "gate", "up", "down"]
    assert all(len(row[1]) == LAYERS for row in rows)
    assert all(len(line) <= 80 for line in drawn)
    assert subllm("show", NAME, "--json").json["patterns"] == found
    assert subllm("verify", NAME).status == 0
    assert ran.json["pattern"] in subllm("list").out
    assert subllm("complete", "def f(", "-m", NAME, "-n", "3").status == 0

    again = extract("prune.budget=0.8", "--tag", "again")
    assert "sensitivity of" in again.err and "measured before" in again.err
    assert "taken from the store" in again.err
    assert "kept" in dict(line.split("  ", 1) for line in again.out.splitlines())


def test_what_is_to_be_kept_is_checked(tiny: Store, extract: Command) -> None:
    """A random model agrees with itself on little once it is pruned."""
    ran = extract("prune.keep=0.6", "--json")
    assert ran.status == 0, ran.err
    held = ran.json["perplexity"]["python"]["agreement"]
    assert ran.json["expected_agreement"] >= 0.6
    assert ("keep = 0.6 is missed" in ran.err) == (held < 0.6)


def test_one_way_to_say_what_is_kept(tiny: Store, extract: Command, subllm: Command) -> None:
    before = tiny.names()
    for wrong in (
        ["prune.budget=0.8", "prune.keep=0.9"],
        ["prune.budget=0.8", "prune.pattern='8:16'"],
        ["prune.keep=0.8", "prune.pattern='8:16'"],
    ):
        ran = extract(*wrong)
        assert ran.status == 2
        assert "say one of pattern, budget and keep" in ran.err
    for share in ("0.0", "1.0", "1.2", "nan"):
        ran = extract(f"prune.budget={share}")
        assert ran.status == 2 and "key 'prune.budget': Input should be " in ran.err
    ran = extract("prune.budget=0.1")
    assert ran.status == 2 and "budget 0.1 is too small; " in ran.err
    ran = extract("prune.budget=0.8", "prune.method='maskllm'")
    assert ran.status == 2 and "which maskllm does not learn; say a pattern" in ran.err
    assert tiny.names() == before


def test_a_uniform_model_is_not_drawn(tiny: Store, extract: Command, subllm: Command) -> None:
    ran = extract("--json")
    assert ran.json["patterns"] is None and ran.json["pattern"] == "11:16"
    assert "what each matrix keeps" not in subllm("show", NAME).out
    for name in (NAME, BASE):
        assert subllm("show", name, "--json").json["patterns"] is None


def drawn(monkeypatch: pytest.MonkeyPatch, layers: list[dict[str, float]], encoding: str) -> str:
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    draw(layers)
    out.flush()
    return out.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


def test_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [{"q": 1.0, "down": 0.5}, {"q": 0.75, "down": 0.375}]
    text = drawn(monkeypatch, layers, "utf-8")
    assert text.splitlines()[2:] == [
        "  q     █▇   88%",
        "  down  ▆▅   44%",
        "  ▅ 38%  ▆ 50%  ▇ 75%  █ 100%",
    ]
    assert drawn(monkeypatch, layers, "ascii").splitlines()[3] == "  down  65   44%"
    many = [{"q": (layer + 4) / 16} for layer in range(13)]
    assert drawn(monkeypatch, many, "utf-8").splitlines()[2:] == ["  q     ▂▂▃▄▄▄▅▆▆▆▇██   62%"]


def test_many_layers_share_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [{"q": 0.5 if layer % 2 else 1.0} for layer in range(80)]
    text = drawn(monkeypatch, layers, "utf-8").splitlines()
    assert "a column is one of 2 layers" in text[1]
    assert text[2:] == ["  q     " + 40 * "█" + "   75%", "  █ 75%"]
