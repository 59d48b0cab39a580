"""SparseGPT against a case by hand and an oracle that inverts a Hessian for every column."""

from __future__ import annotations

import pytest
import torch

from subllm.errors import ExtractionError, PatternError
from subllm.kernels.sparsity.pattern import Pattern
from subllm.making.pruning.hessian import inverse_factor
from subllm.making.pruning.method import InputStatistics, Need, Pruned
from subllm.making.pruning.registry import get_method
from subllm.making.pruning.sparsegpt import SLAB


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pruned(
    weight: torch.Tensor, hessian: torch.Tensor, pattern: str, damping: float = 0.01
) -> Pruned:
    statistics = InputStatistics(1, {Need.FULL_HESSIAN: hessian})
    method = get_method("sparsegpt", {"damping": damping})
    return method.prune(weight, statistics, Pattern.parse(pattern))


def test_by_hand() -> None:
    # H^-1 = [[2, -1], [-1, 2]] / 3. Removing column 0 first costs 1 / (2/3) = 1.5; removing
    # column 1 alone, with column 0 decided, 4 / (1/2) = 8. So column 0 goes, and column 1
    # takes what it can of its outputs: 2 - 1 / (2/3) * (-1/3) = 2.5.
    hessian = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    weight = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    found = pruned(weight, hessian, "50%", damping=0)
    assert found.mask.tolist() == [[False, True]]
    assert found.weight is not None
    assert found.weight.tolist() == [[0.0, pytest.approx(2.5)]]
    assert weight.tolist() == [[1.0, 2.0]], "the weight that was given is left as it is"
    # With costs 9 / (2/3) = 13.5 and 8 column 1 goes. Nothing is to the right of it, so that
    # column 0 stays as it was.
    found = pruned(torch.tensor([[3.0, 2.0]], dtype=torch.float64), hessian, "50%", damping=0)
    assert found.mask.tolist() == [[True, False]]
    assert found.weight is not None and found.weight.tolist() == [[3.0, 0.0]]


def quotas(pattern: Pattern, columns: int) -> list[tuple[int, int, int]]:
    """First column, end and number kept, of everything that a row chooses at once."""
    if pattern.kind == "nm":
        return [(j, j + pattern.m, pattern.n) for j in range(0, columns, pattern.m)]
    total = columns - int(columns * pattern.percent // 100)
    found, kept = [], 0
    for start in range(0, columns, 128):
        stop = min(start + 128, columns)
        so_far = (total * stop) // columns
        found.append((start, stop, so_far - kept))
        kept = so_far
    return found


def by_inverting_for_every_column(
    weight: torch.Tensor, hessian: torch.Tensor, damping: float, pattern: Pattern
) -> tuple[torch.Tensor, torch.Tensor]:
    """Optimal brain surgeon, column by column: what is left of the Hessian is inverted each
    time. Returns mask and weights, float64."""
    columns = weight.shape[1]
    h = (
        hessian.double()
        + damping * hessian.double().diagonal().mean() * torch.eye(columns).double()
    )
    inverses = [torch.linalg.inv(h[j:, j:]) for j in range(columns)]
    work, mask = weight.double().clone(), torch.ones(weight.shape, dtype=torch.bool)
    for row, kept in zip(work, mask, strict=True):
        for start, stop, keep in quotas(pattern, columns):
            costs = {j: float(row[j] ** 2 / inverses[j][0, 0]) for j in range(start, stop)}
            ranked = sorted(costs, key=lambda j: (costs[j], j))
            dropped = set(ranked[: stop - start - keep])
            for j in range(start, stop):
                if j in dropped:
                    row[j:] -= row[j] / inverses[j][0, 0] * inverses[j][0]
                    kept[j] = False
                    row[j] = 0
    return mask, work


def inputs(columns: int, tokens: int = 400) -> torch.Tensor:
    """Related inputs, as activations are."""
    generator = seeded(columns)
    mixed = torch.randn(tokens, columns, generator=generator, dtype=torch.float64)
    mixed += mixed @ torch.randn(columns, columns, generator=generator, dtype=torch.float64) / 8
    return mixed * torch.rand(columns, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("pattern", ["2:4", "4:8", "8:16", "3:32", "50%", "33%"])
@pytest.mark.parametrize("columns", [96, SLAB + 64])
def test_it_equals_inverting_for_every_column(pattern: str, columns: int) -> None:
    x = inputs(columns)
    weight = torch.randn(5, columns, dtype=torch.float64, generator=seeded(5))
    found = pruned(weight, x.T @ x, pattern)
    mask, updated = by_inverting_for_every_column(weight, x.T @ x, 0.01, Pattern.parse(pattern))
    assert torch.equal(found.mask, mask)
    assert found.weight is not None
    assert torch.allclose(found.weight, updated, rtol=1e-8, atol=1e-10)
    assert not found.weight[~found.mask].any()


@pytest.mark.parametrize("pattern", ["2:4", "8:16", "50%", "37%"])
def test_rows_keep_exactly_as_many_and_outputs_err_less_than_wanda(pattern: str) -> None:
    columns = 2 * SLAB + 32
    x = inputs(columns, 2000)
    weight = torch.randn(64, columns, generator=seeded(64)).bfloat16()
    parsed = Pattern.parse(pattern)
    found = pruned(weight, (x.T @ x).float(), pattern)
    assert (found.mask.sum(1) == parsed.kept_per_row(columns)).all()
    if parsed.kind == "nm":
        assert (found.mask.reshape(64, -1, parsed.m).sum(-1) == parsed.n).all()
    squares = InputStatistics(1, {Need.SQUARE_SUMS: x.square().sum(0)})
    wanda = get_method("wanda").prune(weight, squares, parsed).mask
    assert found.weight is not None and found.weight.dtype == torch.float32

    def error(of: torch.Tensor) -> float:
        return float(((of.double() - weight.double()) @ x.T).square().sum())

    assert error(found.weight) < 0.8 * error(weight * wanda)


def test_inputs_that_calibration_never_saw_go_first() -> None:
    x = inputs(16)
    x[:, [3, 8, 9]] = 0
    found = pruned(torch.ones(2, 16), (x.T @ x).float(), "4:8")
    assert not found.mask[:, [3, 8, 9]].any()
    blank = pruned(torch.tensor([[1.0, 4.0, 3.0, 2.0]]), torch.zeros(4, 4), "2:4")
    assert blank.mask.tolist() == [[False, True, True, False]]
    assert blank.weight is not None and blank.weight.tolist() == [[0.0, 4.0, 3.0, 0.0]]


def test_a_dense_pattern_changes_nothing() -> None:
    found = pruned(torch.ones(2, 16), torch.eye(16), "dense")
    assert found.mask.all() and found.weight is None


def test_errors_say_what_to_do() -> None:
    weight, half = torch.ones(2, 4), Pattern.parse("2:4")
    with pytest.raises(ExtractionError, match="products of all columns of activations; calibrate"):
        get_method("sparsegpt").prune(weight, InputStatistics(0), half)
    with pytest.raises(PatternError):
        pruned(torch.ones(2, 6), torch.eye(6), "2:4")
    singular = torch.ones(4, 4)
    with pytest.raises(ExtractionError, match="damping above 0"):
        pruned(weight, singular, "2:4", damping=0)
    with pytest.raises(ExtractionError, match="cannot be inverted"):
        inverse_factor(torch.full((4, 4), float("nan")), 0.01)


def test_one_calibration_token_is_enough_with_damping() -> None:
    x, weight = torch.randn(4, 32, generator=seeded(1)).split([1, 3])
    found = pruned(weight, x.T @ x, "8:16")
    assert found.weight is not None and found.weight.isfinite().all()
