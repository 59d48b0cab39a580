"""int4 with what calibration knows: importance of columns and feedback of errors."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from subllm.kernels import native
from subllm.kernels.sparsity.int4 import Int4Rows, pack_int4, steps
from subllm.kernels.sparsity.mask import select
from subllm.kernels.sparsity.packing import PackedTensor, pack, unpack
from subllm.kernels.sparsity.pattern import Pattern
from subllm.kernels.sparsity.reference import codes_reference
from subllm.making.extraction.blocks.tap import Hessian, SquareSums
from subllm.making.extraction.dense import DenseForm, add_dense
from subllm.making.extraction.extract import extract
from subllm.making.extraction.prepare import ExtractOptions
from subllm.making.extraction.quantiser import Quantiser, needs_of
from subllm.making.pruning.feedback import DAMPING, feedback_of
from subllm.making.pruning.method import HESSIAN_COLUMNS, InputStatistics, Need
from subllm.models.store.model_files import open_model
from subllm.progress import NullProgress

from .conftest import BASE, prepared_for

Floats = npt.NDArray[np.float32]
PATTERNS = ("dense", "8:16", "50%")


def inputs(tokens: int, columns: int) -> Floats:
    """Inputs as a model has them: columns of unlike size that go together."""
    rng = np.random.default_rng(columns)
    common = rng.standard_normal((tokens, 6)) @ rng.standard_normal((6, columns))
    own = rng.standard_normal((tokens, columns))
    return ((common + 0.5 * own) * 10 ** rng.uniform(-1, 1, columns)).astype(np.float32)


def statistics(x: Floats, needs: frozenset[Need] = needs_of("int4")) -> InputStatistics:
    kinds = {Need.SQUARE_SUMS: SquareSums, Need.HESSIAN: Hessian}
    found = {}
    for need in needs:
        accumulator = kinds[need]()
        for part in np.array_split(x, 3):
            accumulator.add(torch.from_numpy(part))
        found[need] = accumulator.value()
    return InputStatistics(len(x), found)


def matrix(rows: int, columns: int) -> Floats:
    rng = np.random.default_rng(rows + columns)
    return (0.03 * rng.standard_t(5, (rows, columns))).astype(np.float32)


def mask_of(weights: Floats, pattern: str) -> npt.NDArray[np.bool_] | None:
    return None if pattern == "dense" else select(np.abs(weights), Pattern.parse(pattern))


def quantised(x: Floats, weights: Floats, pattern: str, needs: frozenset[Need]) -> PackedTensor:
    mask = mask_of(weights, pattern)
    return Quantiser(statistics(x, needs)).pack(weights, mask, Pattern.parse(pattern), "int4")


def test_a_hessian_is_the_products_of_columns_by_slabs() -> None:
    columns = HESSIAN_COLUMNS + 70
    x = inputs(50, columns)
    hessian = statistics(x)[Need.HESSIAN].numpy()
    want = x.astype(np.float64).T @ x
    first, rest = slice(0, HESSIAN_COLUMNS), slice(HESSIAN_COLUMNS, None)
    assert hessian.shape == (2, HESSIAN_COLUMNS, HESSIAN_COLUMNS)
    assert np.allclose(hessian[0], want[first, first], rtol=1e-4, atol=1e-3)
    assert np.allclose(hessian[1, :70, :70], want[rest, rest], rtol=1e-4, atol=1e-3)
    assert not hessian[1, 70:].any() and not hessian[1, :, 70:].any()


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("columns", [96, HESSIAN_COLUMNS + 160])
def test_outputs_err_less_with_every_statistic(pattern: str, columns: int) -> None:
    x, weights = inputs(3000, columns), matrix(24, columns)
    mask = mask_of(weights, pattern)
    kept = weights if mask is None else weights * mask

    def error(*needs: Need) -> float:
        packed = quantised(x, weights, pattern, frozenset(needs))
        packed.verify()
        values = unpack(packed)
        assert mask is None or not values[~mask].any()
        return float((((values - kept).astype(np.float64) @ x.T) ** 2).sum())

    plain, scales, both = error(), error(Need.SQUARE_SUMS), error(*needs_of("int4"))
    assert scales < 0.95 * plain
    assert both < 0.6 * scales


def one_by_one(
    packed: PackedTensor, weights: Floats, hessian: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """Codes by the definition, in float64: after each column the inverse Hessian loses it."""
    terms = steps(packed).astype(np.float64).repeat(32, axis=2)[:, :, : weights.shape[1]]
    damped = hessian + DAMPING * np.diag(hessian).mean() * np.eye(len(hessian))
    inverse, left = np.linalg.inv(damped), weights.astype(np.float64)
    codes = np.zeros(weights.shape, np.int64)
    for column in np.argsort(-np.diag(damped), kind="stable"):
        step, minimum = terms[0, :, column], terms[1, :, column]
        codes[:, column] = np.clip(np.rint((left[:, column] + minimum) / step), 0, 15)
        error = left[:, column] - (step * codes[:, column] - minimum)
        left -= np.outer(error / inverse[column, column], inverse[column])
        inverse -= np.outer(inverse[:, column], inverse[column]) / inverse[column, column]
    return codes


def test_codes_are_those_of_one_column_after_the_other() -> None:
    x, weights = inputs(2000, 160), matrix(40, 160)
    packed = quantised(x, weights, "dense", needs_of("int4"))
    want = one_by_one(packed, weights, x.astype(np.float64).T @ x)
    codes = codes_reference(packed)
    assert (codes == want).mean() > 0.99  # float32 rounds a few the other way
    assert (codes != codes_reference(quantised(x, weights, "dense", frozenset()))).mean() > 0.2


def test_threads_do_not_show() -> None:
    rng = np.random.default_rng(0)
    weights = matrix(100, 64)
    feedback = feedback_of(torch.from_numpy(inputs(500, 64).T @ inputs(500, 64)))
    step = rng.uniform(0.001, 0.01, (100, 2)).astype(np.float32)

    def run(threads: int) -> tuple[bytes, ...]:
        left, errors = weights.copy(), np.empty_like(weights)
        codes, sub_of = np.empty(weights.shape, np.uint8), np.repeat([0, 1], 32).astype(np.int32)
        native.core().round_with_feedback(
            left,
            feedback.upper.contiguous().numpy(),
            sub_of,
            step,
            step * 8,
            None,
            codes,
            errors,
            threads,
        )
        return left.tobytes(), codes.tobytes(), errors.tobytes()

    assert run(1) == run(2) == run(0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, 1e30])
def test_statistics_that_say_nothing(bad: float) -> None:
    """NaN, infinite, no inputs at all, or too large to square: the weights alone decide then,
    or codes without feedback."""
    weights = matrix(8, 64)
    packed = quantised(np.full((4, 64), bad, np.float32), weights, "dense", needs_of("int4"))
    packed.verify()
    plain = unpack(pack(weights, None, "dense", "int4"))
    assert np.abs(unpack(packed) - weights).max() <= 2 * np.abs(plain - weights).max()


def test_only_int4_looks_at_inputs() -> None:
    assert needs_of("int8") == needs_of("bf16") == frozenset()
    x, weights = inputs(100, 64), matrix(8, 64)
    for values in ("int8", "bf16"):
        packed = Quantiser(statistics(x)).pack(weights, None, Pattern.parse("dense"), values)
        assert np.array_equal(unpack(packed), unpack(pack(weights, None, "dense", values)))


@pytest.mark.parametrize("compute", ["float32", "int8"])
def test_an_extraction_quantises_by_its_calibration(store, add_base, compute: str) -> None:
    """Another text, other codes under the same mask; int8 products collect no Hessian and do
    with the mean squares."""
    add_base("qwen2")
    found = []
    for samples in (6, 3):
        options = ExtractOptions(
            "python", method="wanda", pattern="8:16", values="int4", compute=compute
        )
        report = extract(store, prepared_for(store, options, samples=samples), NullProgress())
        found.append(open_model(store, report.name).tensor("model.layers.0.mlp.up_proj.weight"))
    assert not np.array_equal(found[0].data, found[1].data)
    dense = add_dense(store, BASE, NullProgress(), DenseForm(values="int8"))
    source = unpack(open_model(store, dense.name).tensor("model.layers.0.mlp.up_proj.weight"))
    kept = unpack(found[0]) != 0
    assert np.abs(unpack(found[0]) - source)[kept].mean() < 0.15 * np.abs(source).mean()


def test_int4_leaves_attention_at_8_bits(store, add_base) -> None:
    add_base("llama")
    options = ExtractOptions("python", pattern="8:16", values="int4", compute="float32")
    sparse = extract(store, prepared_for(store, options), NullProgress())
    dense = add_dense(store, BASE, NullProgress(), DenseForm(values="int4"))
    for report in (sparse, dense):
        assert report.manifest.values == "int4"
        files = open_model(store, report.name)
        for entry in report.manifest.tensors:
            if entry.blob == "own":
                want = "int8" if ".self_attn." in entry.name else "int4"
                assert entry.values == files.tensor(entry.name).values == want, entry.name


UP = "model.layers.1.mlp.up_proj.weight"


def test_a_dense_base_is_rounded_by_calibration(store, add_base) -> None:
    """Its int4 MLP is not that of the weights alone; attention and other values do not care."""
    model = add_base("qwen2")
    report = add_dense(store, BASE, NullProgress(), DenseForm(values="int4", samples=4))
    record = report.manifest.calibration
    assert record is not None and record.samples == 4 and record.source.startswith("mix:")
    alone = add_dense(store, BASE, NullProgress(), DenseForm(values="int4", samples=0), tag="alone")
    assert alone.manifest.calibration is None and alone.manifest.plan != report.manifest.plan
    files, plain = open_model(store, report.name), open_model(store, alone.name)
    weights = model.get_parameter(UP).detach().numpy()
    assert np.array_equal(unpack(plain.tensor(UP)), unpack(pack(weights, None, "dense", "int4")))
    assert not np.array_equal(files.tensor(UP).data, plain.tensor(UP).data)
    error = np.abs(unpack(files.tensor(UP)) - weights).mean()
    assert error < 0.15 * np.abs(weights).mean()
    query = "model.layers.1.self_attn.q_proj.weight"
    assert np.array_equal(files.tensor(query).data, plain.tensor(query).data)
    assert add_dense(store, BASE, NullProgress(), DenseForm(values="int4", samples=4)).cached
    assert (
        add_dense(store, BASE, NullProgress(), DenseForm(values="int8")).manifest.calibration
        is None
    )


def test_codes_that_a_base_has_stay_as_they_are(store, add_base, monkeypatch) -> None:
    """With calibration too; where it has nearly all that is wanted, there is none."""
    model = add_base("qwen2")
    rng = np.random.default_rng(1)

    def coded(name: str) -> Int4Rows:
        rows, columns = model.get_parameter(name).shape
        supers = -(-columns // 256)
        return Int4Rows(
            rng.integers(0, 16, (rows, columns), np.uint8),
            rng.random((rows, supers, 2)).astype(np.float16),
            rng.integers(1, 64, (rows, supers, 2, 8), np.uint8),
        )

    known = {UP: coded(UP)}
    reader = "subllm.models.weights.safetensors.SafetensorsReader"
    monkeypatch.setattr(f"{reader}.int4", lambda _, name: known.get(name))
    monkeypatch.setattr(f"{reader}.holds_int4", lambda _, name: name in known)
    report = add_dense(store, BASE, NullProgress(), DenseForm(values="int4", samples=2))
    assert report.manifest.calibration is not None
    found = open_model(store, report.name).tensor(UP)
    assert np.array_equal(found.data, pack_int4(known[UP], None, "dense").data)
    known.update(
        {
            entry.name: coded(entry.name)
            for entry in report.manifest.tensors
            if ".mlp." in entry.name
        }
    )
    assert (
        add_dense(store, BASE, NullProgress(), DenseForm(values="int4")).manifest.calibration
        is None
    )
