"""`subllm compare` on models with random masks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from oracles.masked_models import BASE, add_model, random_masks

from subllm.measuring.report.masks.records import read_comparison
from subllm.measuring.report.masks.windows import read_windows
from subllm.models.store.collect import remove
from subllm.models.store.store import Store

from .samples import Ran

Command = Callable[..., Ran]
PYTHON, JAVA, GENERAL, DENSE = (f"{BASE}-{each}" for each in ("python", "java", "general", "dense"))
SEEDS = {PYTHON: 0, JAVA: 1, GENERAL: 2}


@pytest.fixture
def masked(tmp_path: Path) -> Store:
    """Three sub-models and a dense one, in the store that commands see."""
    store = Store(tmp_path / "subllm-home")
    for name, seed in SEEDS.items():
        add_model(store, name, random_masks(seed))
    add_model(store, DENSE, {}, "dense")
    return store


def add_base(store: Store) -> None:
    """The base's own name, so that it can stand for its sub-models."""
    from subllm.models.catalog.prompt import PromptSpec
    from subllm.models.store.manifest import BaseManifest, Licence

    base = BaseManifest(
        name=BASE,
        source="path:base",
        weights="gguf",
        files=(),
        licence=Licence(id="Apache-2.0"),
        prompt=PromptSpec(context_length=64),
    )
    store.set_ref(BASE, store.put_manifest(base))


def distance(a: str, b: str, part: str = "") -> float:
    """From the masks themselves, over the matrices whose name holds `part`."""
    first, second = random_masks(SEEDS[a]), random_masks(SEEDS[b])
    both = sum(int((first[n] & second[n]).sum()) for n in first if part in n)
    either = sum(int((first[n] | second[n]).sum()) for n in first if part in n)
    return 1 - both / either


def test_json_has_every_count(masked: Store, subllm: Command) -> None:
    ran = subllm("compare", PYTHON, JAVA, GENERAL, "--json")
    assert ran.status == 0, ran.err
    document = ran.json
    assert [model["name"] for model in document["models"]] == list(SEEDS)
    assert document["weights"] == 3 * (80 * 80 * 2 + 2 * 20 * 80 + 3 * 112 * 80)
    pairs = {(pair["a"], pair["b"]): pair for pair in document["pairs"]}
    assert {key: pair["kind"] for key, pair in pairs.items()} == {
        (PYTHON, JAVA): "across",
        (PYTHON, GENERAL): "general",
        (JAVA, GENERAL): "general",
    }
    for (a, b), pair in pairs.items():
        assert pair["distance"] == pytest.approx(distance(a, b), abs=1e-15)
        assert pair["by_type"]["down"] == pytest.approx(distance(a, b, "down"), abs=1e-15)
        assert pair["by_layer"][1] == pytest.approx(distance(a, b, "layers.1."), abs=1e-15)
        assert list(pair["by_type"]) == ["q", "k", "v", "o", "gate", "up", "down"]
        assert pair["distance_of_independent_masks"] == pytest.approx(2 / 3)
    means = document["mean_distance"]
    assert means["within"] is None
    assert means["across"] == pytest.approx(distance(PYTHON, JAVA))
    general = (distance(PYTHON, GENERAL) + distance(JAVA, GENERAL)) / 2
    assert means["general"] == pytest.approx(general)
    python = document["models"][0]
    masks = [random_masks(seed) for seed in SEEDS.values()]
    alone = sum(int((masks[0][n] & ~masks[1][n] & ~masks[2][n]).sum()) for n in masks[0])
    assert python["kept_alone"] == alone
    assert python["unique_value_bytes"] == alone  # int8
    assert python["kept_bytes"] == python["kept"] == document["weights"] // 2
    assert python["shared_value_bytes"] == python["kept"] - alone
    both = sum(int((masks[0][n] & masks[2][n]).sum()) for n in masks[0])
    assert python["kept_in_general"] == {GENERAL: pytest.approx(both / python["kept"])}
    assert document["models"][2]["kept_in_general"] == {}
    assert len(document["matrices"]) == 21
    assert sum(matrix["by_all"] for matrix in document["matrices"]) == document["kept_by_all"]
    assert document["files"] == []


def test_the_tables_fit_80_columns(masked: Store, subllm: Command) -> None:
    ran = subllm("compare", PYTHON, JAVA, GENERAL, DENSE, "--layers")
    assert ran.status == 0, ran.err
    lines = ran.out.splitlines()
    assert max(map(len, lines)) <= 80
    row = next(line for line in lines if line.startswith("python / java"))
    assert row.split()[3] == f"{distance(PYTHON, JAVA):.3f}"
    assert row.split()[-1] == f"{distance(PYTHON, JAVA, 'down'):.3f}"
    dense = next(line for line in lines if line.startswith("python / dense"))
    assert dense.split()[3:] == ["0.500"] * 8
    assert "java and general by layer, Jaccard distance" in lines
    assert ran.out.count("LAYER") == 6
    assert "LAYER" not in subllm("compare", PYTHON, JAVA).out


def test_a_base_stands_for_its_sub_models(masked: Store, subllm: Command) -> None:
    add_base(masked)
    for given in ([BASE], [BASE, JAVA], [PYTHON, BASE]):
        models = subllm("compare", *given, "--json").json["models"]
        assert {model["name"] for model in models} == set(SEEDS)
    assert len(subllm("compare", BASE, DENSE, "--json").json["models"]) == 4
    for name in (JAVA, GENERAL):
        remove(masked, name)
    ran = subllm("compare", BASE)
    assert (ran.status, ran.out) == (2, "")
    assert f"{BASE} has only {PYTHON}; make more with 'subllm extract LANGUAGE" in ran.err
    remove(masked, PYTHON)
    assert "has no sub-model yet" in subllm("compare", BASE).err


def test_files_and_pictures(masked: Store, subllm: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = subllm(
        "compare", PYTHON, JAVA, "--out", str(out), "--draw", "2,0", "--window", "8x16+4+3"
    )
    assert ran.status == 0, ran.err
    assert "python / java" in ran.out
    written = [line.removeprefix("wrote ") for line in ran.err.splitlines() if "wrote" in line]
    assert sorted(map(Path, written)) == sorted(out.iterdir())
    assert len(written) == 8
    comparison = read_comparison((out / "masks.jsonl").read_text())
    assert comparison.overlap().distance(0, 1) == pytest.approx(distance(PYTHON, JAVA))
    windows = read_windows((out / "overlay.jsonl").read_text())
    assert sorted({w.layer for w in windows}) == [0, 2]
    assert (windows[0].at, windows[0].size) == ((4, 3), (8, 16))
    kept = random_masks(1)[windows[0].tensor]
    assert np.array_equal(windows[0].kept_array()[1], kept[4:12, 3:19])
    listed = subllm("compare", PYTHON, JAVA, "--out", str(out), "--json")
    assert [Path(each).name for each in listed.json["files"]] == [
        Path(each).name for each in written
    ]
    assert {w.layer for w in read_windows((out / "overlay.jsonl").read_text())} == {1}


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([PYTHON], 2, "needs two models or more"),
        ([PYTHON, PYTHON], 2, "is given twice"),
        ([PYTHON, f"{BASE}-pyton"], 2, f"did you mean {PYTHON}"),
        ([], 2, "Missing argument"),
        ([PYTHON, JAVA, "--draw", "1"], 2, "say where with --out DIR"),
        ([PYTHON, JAVA, "--window", "8x8"], 2, "say where with --out DIR"),
        ([PYTHON, JAVA, "--out", "x", "--window", "8"], 2, "use ROWSxCOLUMNS"),
        ([PYTHON, JAVA, "--out", "x", "--draw", "1,a"], 2, "as in --draw 0,12"),
        ([PYTHON, JAVA, "--out", "x", "--draw", "3"], 2, "the layers are 0 to 2"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(
    arguments: list[str], status: int, message: str, masked: Store, subllm: Command,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    ran = subllm("compare", *arguments)
    assert (ran.status, ran.out) == (status, "")
    assert message in ran.err
    assert "Traceback" not in ran.err
    assert not (tmp_path / "x").exists()


def test_without_the_drawing_libraries_tables_still_work(
    masked: Store, subllm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("matplotlib.figure", "matplotlib", "treescope"):
        monkeypatch.setitem(sys.modules, module, None)
    assert subllm("compare", PYTHON, JAVA).status == 0
    ran = subllm("compare", PYTHON, JAVA, "--out", str(tmp_path / "out"))
    assert (ran.status, ran.out) == (2, "")
    assert "run: pip install 'subllm[report]'" in ran.err
    assert not (tmp_path / "out").exists()
