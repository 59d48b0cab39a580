"""The head's screening plane: made and multiplied as the numpy oracle does it, bit for bit, by
every instruction set; kept in its file; refused where it does not belong."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracles import screen as oracle

from subllm.errors import LayoutError
from subllm.kernels import native
from subllm.kernels.products.ops import isas
from subllm.kernels.sparsity.packed_file import PackedReader, PackedWriter, concat
from subllm.kernels.sparsity.packing import PackedTensor, pack, unpack
from subllm.kernels.sparsity.screen import Screen, build_screen, check_screen

SHAPES = [(1, 1), (16, 16), (37, 50), (100, 197), (64, 896), (16 * 1030 + 5, 20)]


def head(rows: int, cols: int, values: str = "int8", seed: int = 0) -> PackedTensor:
    """Rows of different size, a few columns far wider than the rest."""
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((rows, cols)) * rng.uniform(0.01, 1, (rows, 1))
    weights[:, rng.integers(0, cols, 3)] *= 6
    weights[rows // 2] = 0
    return pack(weights.astype(np.float32), None, "dense", values)


def product(screen: Screen, x: Any, isa: str = "") -> Any:
    core = native.core()
    out = np.empty((len(x), screen.shape[0]), np.float32)
    handle = core.Screen(*screen.shape, screen.codes, screen.steps, screen.columns)
    core.screen(core.Pool(0), handle, x, out, isa)
    return out


@pytest.mark.parametrize(("rows", "cols"), SHAPES)
def test_is_made_as_defined(rows: int, cols: int) -> None:
    packed = head(rows, cols)
    made, want = build_screen(packed), oracle.build(unpack(packed))
    for name, plane in want.items():
        np.testing.assert_array_equal(getattr(made, name), plane)
    alone = build_screen(packed, threads=1)
    np.testing.assert_array_equal(alone.codes, made.codes)


@pytest.mark.parametrize("values", ["int4", "bf16"])
def test_of_any_values(values: str) -> None:
    packed = head(50, 320, values)
    np.testing.assert_array_equal(build_screen(packed).codes, oracle.build(unpack(packed))["codes"])


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize(("rows", "cols"), SHAPES)
def test_products_are_the_same_bits(isa: str, rows: int, cols: int) -> None:
    screen = build_screen(head(rows, cols))
    x = np.random.default_rng(1).standard_normal((17, cols)).astype(np.float32) * 3
    x[3] = 0
    want = oracle.multiply(screen, x)
    for count in (1, 2, 3, 4, 5, 8, 16, 17):
        np.testing.assert_array_equal(product(screen, x[:count], isa), want[:count])


@pytest.mark.parametrize("isa", isas())
def test_extreme_codes(isa: str) -> None:
    """The largest sums that 16 bits have to hold."""
    screen = build_screen(head(32, 2048))
    full = dataclasses.replace(screen, codes=np.full_like(screen.codes, 255))
    for x in (np.ones((1, 2048), np.float32), -np.ones((1, 2048), np.float32)):
        np.testing.assert_array_equal(product(full, x, isa), oracle.multiply(full, x))


def test_is_a_quarter_and_ranks() -> None:
    packed = head(2000, 896)
    screen = build_screen(packed)
    assert screen.nbytes < 0.27 * packed.nbytes
    x = np.random.default_rng(2).standard_normal((64, 896)).astype(np.float32)
    exact, copy = x @ unpack(packed).T, product(screen, x)
    best = np.argsort(-copy, axis=1)[:, :32]
    assert np.all(np.any(best == exact.argmax(axis=1)[:, None], axis=1))


def write(path: Path, packed: PackedTensor, screen: Screen | None) -> None:
    with PackedWriter(path) as writer:
        writer.add_packed("lm_head.weight", packed, screen)
        writer.add_packed("other.weight", head(8, 64))
        writer.add_vector("norm", np.ones(3, np.float32))


def test_stays_in_its_file(tmp_path: Path) -> None:
    packed = head(37, 200)
    screen = build_screen(packed)
    write(tmp_path / "a", packed, screen)
    concat([tmp_path / "a"], tmp_path / "b")
    for name in "ab":
        with PackedReader(tmp_path / name) as reader:
            reader.verify()
            found = reader.screen("lm_head.weight")
            assert found is not None
            check_screen(found, reader.tensor("lm_head.weight"), "lm_head.weight")
            np.testing.assert_array_equal(found.codes, screen.codes)
            np.testing.assert_array_equal(found.steps, screen.steps)
            assert reader.screen("other.weight") is None
            assert reader.names() == ("lm_head.weight", "other.weight", "norm")


def test_of_another_head_is_refused(tmp_path: Path) -> None:
    packed, other = head(37, 200), head(37, 200, seed=1)
    screen = build_screen(other)
    with pytest.raises(LayoutError, match="another head"):
        check_screen(screen, packed, "lm_head.weight")
    with pytest.raises(LayoutError, match="another head"):
        write(tmp_path / "a", packed, screen)
    assert not (tmp_path / "a").exists()


def test_damage_is_found(tmp_path: Path) -> None:
    packed = head(37, 200)
    write(tmp_path / "a", packed, build_screen(packed))
    data = bytearray((tmp_path / "a").read_bytes())
    with PackedReader(tmp_path / "a") as reader:
        entry = next(e for e in reader.entries if e.name.endswith("screen.codes"))
        start = len(data) - max(e.end for e in reader.entries)
    data[start + entry.start + 70] ^= 4
    (tmp_path / "b").write_bytes(data)
    with PackedReader(tmp_path / "b") as reader, pytest.raises(LayoutError, match="screening"):
        reader.verify()


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'screen.codes"', b'screen.kodes"'), (b'"screen\\":\\"', b'"skreen\\":\\"')],
)
def test_malformed_tables_are_refused(tmp_path: Path, old: bytes, new: bytes) -> None:
    packed = head(37, 200)
    write(tmp_path / "a", packed, build_screen(packed))
    data = (tmp_path / "a").read_bytes()
    assert old in data
    (tmp_path / "b").write_bytes(data.replace(old, new))
    with pytest.raises(LayoutError):
        PackedReader(tmp_path / "b")


def test_columns_outside_are_refused() -> None:
    screen = build_screen(head(16, 32))
    columns = screen.columns.copy()
    columns[0] = 32
    with pytest.raises(ValueError, match="column"):
        native.core().Screen(16, 32, screen.codes, screen.steps, columns)
