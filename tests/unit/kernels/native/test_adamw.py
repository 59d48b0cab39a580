"""AdamW in the core against the same in numpy, for every instruction set of this CPU."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
import pytest

from subllm.kernels import native

core = native.core()
ISAS = core.adamw_isas()
CHUNK = core.ADAMW_CHUNK
FACTORS = {"clip": 0.5, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "rate": 1e-3, "root": 0.3}
TYPES = {"float32": np.float32, "bfloat16": np.uint16}


def narrow(values: np.ndarray) -> np.ndarray:
    """float32 to the nearest bfloat16, the even one of two; its bits."""
    below = values.view(np.uint32) >> 16
    error = (values.view(np.uint32) & 0xFFFF).astype(np.int64) - 0x8000
    return (below + ((error > 0) | ((error == 0) & (below % 2 == 1)))).astype(np.uint16)


def widen(values: np.ndarray) -> np.ndarray:
    return values if values.dtype == np.float32 else (values.astype(np.uint32) << 16).view("f4")


def halves(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float32 as the nearest bfloat16, of two the one farther from 0, and what it is more."""
    bits = values.view(np.uint32)
    return ((bits.astype(np.uint64) + 0x8000) >> 16).astype(np.uint16), bits.astype(np.int16)


def whole(weight: np.ndarray, rest: np.ndarray) -> np.ndarray:
    return ((weight.astype(np.int64) << 16) + rest).astype(np.uint32).view(np.float32)


def as_type(values: np.ndarray, name: str) -> np.ndarray:
    values = values.astype(np.float32)
    return values if name == "float32" else narrow(values)


@dataclass
class Case:
    """index: the kept places of a tensor of `size`, or None for all; apart: whether masters have
    a place of their own."""

    size: int
    index: np.ndarray | None
    gradient_type: str = "bfloat16"
    moments_type: str = "bfloat16"
    weight_type: str = "bfloat16"
    apart: bool = True
    factors: dict[str, float] = field(default_factory=lambda: dict(FACTORS))

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.size)
        self.kept = np.arange(self.size) if self.index is None else self.index
        count = len(self.kept)
        self.gradient = as_type(random.normal(size=self.size), self.gradient_type)
        self.master = random.normal(size=count).astype(np.float32)
        self.first = as_type(random.normal(size=count) * 0.01, self.moments_type)
        self.second = as_type(random.random(count) * 1e-4, self.moments_type)
        self.weight = as_type(random.normal(size=self.size), self.weight_type)
        self.rest: np.ndarray | None = None
        if not self.apart and self.weight_type == "bfloat16":
            self.weight[self.kept], self.rest = halves(self.master)
        elif not self.apart:
            self.weight[self.kept] = self.master

    def places(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        if self.index is None:
            return None, None
        flags = np.zeros(-(-self.size // 64) * 64, np.bool_)
        flags[self.index] = True
        starts = self.index.astype(np.int32)[::CHUNK].copy()
        return np.packbits(flags, bitorder="little").view(np.uint64), starts

    def masters(self) -> np.ndarray:
        if self.apart:
            return self.master
        kept = self.weight[self.kept]
        return kept if self.rest is None else whole(kept, self.rest)

    def state(self) -> list[np.ndarray]:
        return [self.masters(), self.first, self.second, self.weight]

    def step(self, isa: str = "", threads: int = 1) -> float:
        norm: float = core.adamw(
            core.Pool(threads),
            self.gradient,
            *self.places(),
            self.master if self.apart else None,
            self.rest,
            self.first,
            self.second,
            self.weight,
            **self.factors,
            isa=isa,
        )
        return norm

    def expected(self) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        """Norm, master and moments after a step, in float64 throughout."""
        f = self.factors
        g = widen(self.gradient)[self.kept].astype(np.float64)
        norm = float(np.sqrt((g * g).sum()))
        g *= min(1.0, f["clip"] / norm) if norm else 1.0
        m = f["beta1"] * widen(self.first) + (1 - f["beta1"]) * g
        v = f["beta2"] * widen(self.second) + (1 - f["beta2"]) * g * g
        moved = f["rate"] * m / (np.sqrt(v) / f["root"] + f["eps"])
        return norm, self.master - moved, m, v


def half(size: int) -> np.ndarray:
    return np.flatnonzero(np.random.default_rng(1).random(size) < 0.5)


def few(size: int) -> np.ndarray:
    """Words without any between them."""
    return np.arange(size - 1, -1, -301)[::-1].copy()


def close_moment(found: np.ndarray, exact: np.ndarray) -> None:
    """To float32's precision; in bfloat16 a value may lie on the other side of a rounding."""
    if found.dtype == np.float32:
        np.testing.assert_allclose(found, exact, rtol=2e-6, atol=2e-9)
        return
    apart = np.abs(found.astype(np.int64) - narrow(exact.astype(np.float32)))
    assert apart.max(initial=0) <= 1
    assert (apart > 0).sum() <= 1 + 0.01 * len(apart)


@pytest.mark.parametrize("isa", ISAS)
def test_a_step_by_hand(isa) -> None:
    case = Case(4, np.array([1, 3]), "float32", "float32", "float32")
    case.factors = {"clip": 1, "beta1": 0.5, "beta2": 0.75, "eps": 0.1, "rate": 0.1, "root": 1}
    case.gradient[:] = [np.nan, 3.0, np.inf, 4.0]  # of length 5, so a fifth of it counts
    case.master[:], case.first[:], case.second[:], case.weight[:] = [1.0, -2.0], 0.0, 0.0, 7.0
    assert case.step(isa) == 5.0
    np.testing.assert_allclose(case.first, [0.3, 0.4], rtol=1e-6)
    np.testing.assert_allclose(case.second, [0.09, 0.16], rtol=1e-6)
    np.testing.assert_allclose(case.master, [1 - 0.075, -2 - 0.08], rtol=1e-6)
    np.testing.assert_array_equal(case.weight, [7.0, case.master[0], 7.0, case.master[1]])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", [1, 2, 31, 33, 601, 2 * CHUNK, 2 * CHUNK + 1, 4 * CHUNK + 77])
@pytest.mark.parametrize("kind", ["all", "half", "few", "none"])
def test_a_step_is_numpy_s(isa, size, kind) -> None:
    index = {"all": None, "half": half(size), "few": few(size), "none": half(0)}[kind]
    for *types, apart in itertools.product(TYPES, TYPES, TYPES, (True, False)):
        case = Case(size, index, *types, apart=apart)
        before = case.weight.copy()
        norm, master, first, second = case.expected()
        assert case.step(isa) == pytest.approx(norm, rel=1e-12)
        moved = case.masters()
        np.testing.assert_allclose(moved, master, rtol=2e-7, atol=5e-8)
        close_moment(case.first, first)
        close_moment(case.second, second)
        before[case.kept] = as_type(moved, case.weight_type)
        if case.rest is not None:
            before[case.kept] = halves(moved)[0]
        np.testing.assert_array_equal(case.weight, before)


@pytest.mark.parametrize("isa", ISAS)
def test_no_bit_of_a_master_is_lost_beside_a_rounded_weight(isa) -> None:
    size = 4 * CHUNK
    whole, split = Case(size, half(size)), Case(size, half(size), apart=False)
    for each in (whole, split):
        each.factors["rate"] = 1e-6  # far less than a bfloat16 shows
    for _ in range(20):
        assert whole.step(isa) == split.step(isa)
        np.testing.assert_array_equal(whole.master, split.masters())
    error = np.abs(widen(split.weight[split.kept]) - split.masters())
    assert (error <= np.abs(widen(whole.weight[split.kept]) - whole.master)).all()


@pytest.mark.parametrize("isa", ISAS)
def test_a_short_gradient_is_not_made_longer(isa) -> None:
    case = Case(50, None, "float32", "float32", "float32")
    case.factors["clip"] = 1e3
    case.first[:] = 0.0
    case.step(isa)
    np.testing.assert_allclose(case.first, 0.1 * case.gradient, rtol=1e-6)
    case.gradient[:] = 0.0
    assert case.step(isa) == 0.0
    assert np.isfinite(case.master).all()


@pytest.mark.parametrize("isa", ISAS)
def test_weights_are_rounded_to_nearest_even(isa) -> None:
    case = Case(6, None)
    case.factors["rate"] = 0.0
    case.master[:] = [1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -1 - 2**-8, 1e-40]
    case.step(isa)
    expected = [1.0, 1.0, 1 + 2**-6, 1 + 2**-7, -1.0, widen(narrow(case.master[5:]))[0]]
    np.testing.assert_array_equal(widen(case.weight), np.array(expected, np.float32))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_no_number_changes_nothing(isa, bad) -> None:
    for gradient_type, place in itertools.product(TYPES, (0, -1)):
        case = Case(3 * CHUNK, half(3 * CHUNK), gradient_type)
        case.gradient[case.kept[place]] = as_type(np.array([bad]), gradient_type)[0]
        before = [array.copy() for array in case.state()]
        assert not np.isfinite(case.step(isa))
        for array, same in zip(case.state(), before, strict=True):
            np.testing.assert_array_equal(array, same)


@pytest.mark.parametrize("isa", ISAS)
def test_the_number_of_threads_does_not_show(isa) -> None:
    size = 90 * CHUNK + 5
    one, two = Case(size, half(size)), Case(size, half(size))
    for _ in range(3):
        assert one.step(isa, 1) == two.step(isa, 2)
    for array, other in zip(one.state(), two.state(), strict=True):
        np.testing.assert_array_equal(array, other)


def test_what_does_not_fit_is_refused() -> None:
    def refused(case: Case, words: str, **changed: object) -> None:
        for name, value in changed.items():
            setattr(case, name, value)
        before = [array.copy() for array in case.state()]
        with pytest.raises(ValueError, match=words):
            case.step()
        for array, same in zip(case.state(), before, strict=True):
            np.testing.assert_array_equal(array, same)

    def some(**kind: bool) -> Case:
        return Case(300, half(300), **kind)

    bits, none, third = some().places()[0], np.zeros(5, np.uint64), np.array([3], np.int32)
    refused(some(), "place lies outside", places=lambda: (bits, third * 100))
    refused(some(), "place lies outside", places=lambda: (none, third))
    refused(some(), "second has", first=np.zeros(3, np.uint16))
    refused(some(), "master has", master=np.zeros(3, np.float32))
    refused(some(apart=False), "rest has", rest=None)
    refused(some(), "weight has", weight=np.zeros(299, np.uint16))
    refused(some(), "bits has", places=lambda: (none[:4], third))
    longer = np.zeros(301, np.uint16)
    refused(Case(300, None), "first has", gradient=longer, weight=longer)
    refused(some(), "gradient is neither", gradient=np.zeros(300))
    refused(some(), "differ in type", second=np.zeros(len(half(300)), np.float32))
    with pytest.raises(ValueError, match="no AdamW named 'potato'"):
        some().step("potato")
