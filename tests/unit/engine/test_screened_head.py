"""Draws by way of the head's screening plane against those of the whole head."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from oracles.packed_models import PackedMemory, packed_oracle

from subllm.engine.backend import Choice, Chunk, Draw
from subllm.engine.backends.native import NativeBackend
from subllm.engine.request import SamplingParams
from subllm.errors import LayoutError, LogitsError
from subllm.kernels.sparsity.screen import Screen, build_screen

VOCAB = 4000
LENGTH = 64
TOKENS = np.random.default_rng(1).integers(0, VOCAB, LENGTH).astype(np.int32)
GREEDY = SamplingParams(temperature=0.0)


def packed_model(family: str = "qwen2", values: str = "int8", **config: Any) -> PackedMemory:
    packed, _ = packed_oracle(family, values, vocab_size=VOCAB, **config)
    packed.screened = True
    return packed


@pytest.fixture(scope="module")
def model() -> PackedMemory:
    return packed_model()


@pytest.fixture(scope="module")
def pair(model: PackedMemory) -> tuple[NativeBackend, NativeBackend]:
    """With and without the screen."""
    return NativeBackend(model), NativeBackend(model, screen=False)


def drawn(
    backend: NativeBackend,
    params: SamplingParams = GREEDY,
    uniforms: Sequence[float] = (),
    tokens: npt.NDArray[np.int32] = TOKENS,
) -> list[Any]:
    """A choice after every position, in one step; `uniforms` of the positions."""
    uniforms = uniforms or [0.5] * len(tokens)
    draws = [
        Draw(params, tokens[: i + 1], 3 if i > 3 else i, uniform)
        for i, uniform in enumerate(uniforms)
    ]
    kv = backend.kv_open()
    found = backend.step([Chunk(kv, 0, tokens, draws)])[0]
    backend.kv_close(kv)
    return list(found)


def tokens_of(choices: list[Any]) -> list[int]:
    return [choice.token for choice in choices]


@pytest.mark.parametrize("values", ["int8", "int4", "bf16"])
@pytest.mark.parametrize("family", ["qwen2", "llama", "gemma2"])  # tied, not, with a soft cap
def test_greedy_is_that_of_the_whole_head(family: str, values: str) -> None:
    packed = packed_model(family, values)
    screened, whole = NativeBackend(packed), NativeBackend(packed, screen=False)
    assert tokens_of(drawn(screened)) == tokens_of(drawn(whole))
    decided, tail, left = screened._decoder.verdicts
    assert decided + tail + left == LENGTH
    assert decided > LENGTH // 2  # or nothing was tested
    assert whole._decoder.verdicts == []


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=0.0, repetition_penalty=1.5, presence_penalty=0.4),
        SamplingParams(temperature=0.0, frequency_penalty=-2.0),
        SamplingParams(temperature=0.0, logit_bias=((7, 100.0),)),
        SamplingParams(temperature=0.0, logit_bias=tuple((t, -100.0) for t in range(0, VOCAB, 2))),
        SamplingParams(temperature=0.7, top_k=40),
        SamplingParams(temperature=0.3, top_k=3, logit_bias=((3999, 5.0),)),
        SamplingParams(temperature=0.3, min_p=0.2),
        SamplingParams(temperature=0.2, top_p=0.5),
    ],
)
def test_what_filters_and_penalties_leave(
    pair: tuple[NativeBackend, NativeBackend], params: SamplingParams
) -> None:
    """Whatever cannot come of the tail is drawn as from the whole head; where mass that is
    estimated takes part (top_p), all but seldom."""
    uniforms = np.random.default_rng(3).random(LENGTH).tolist()
    found, want = (tokens_of(drawn(backend, params, uniforms)) for backend in pair)
    equal = sum(a == b for a, b in zip(found, want, strict=True))
    assert equal == LENGTH if params.top_p == 1.0 else equal >= LENGTH - 1


def test_a_named_token_gets_its_own_logit(pair: tuple[NativeBackend, NativeBackend]) -> None:
    """Every token can be asked for by a bias that just lifts it past the best."""
    screened, whole = pair
    kv = whole.kv_open()
    logits = whole.logits(kv, 0, TOKENS[:8])[-1]
    whole.kv_close(kv)
    order = np.argsort(-logits)
    for token in map(int, order[[1, 300, 2000, -1]]):
        gap = float(logits[order[0]]) - float(logits[token])
        for extra, winner in ((1e-3, token), (-1e-3, int(order[0]))):
            params = SamplingParams(temperature=0.0, logit_bias=((token, gap + extra),))
            assert drawn(screened, params, tokens=TOKENS[:8])[-1].token == winner


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_an_estimate_is_near_the_log_probability(
    pair: tuple[NativeBackend, NativeBackend], temperature: float
) -> None:
    """Also without the screen, and neither changes what is drawn."""
    params = SamplingParams(temperature=temperature)
    exact = drawn(pair[1], dataclasses.replace(params, logprobs=0))
    for backend in pair:
        draws = [
            Draw(params, TOKENS[: i + 1], min(i, 3), 0.5, estimate=True) for i in range(LENGTH)
        ]
        kv = backend.kv_open()
        found = list(backend.step([Chunk(kv, 0, TOKENS, tuple(draws))])[0])
        backend.kv_close(kv)
        assert tokens_of(found) == tokens_of(drawn(backend, params))
        for a, b in zip(found, exact, strict=True):
            assert isinstance(a, Choice) and a.logprob is not None and a.logprob.token == a.token
            if a.token == b.token:
                assert a.logprob.logprob == pytest.approx(b.logprob.logprob, abs=0.25)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_draw_does_not_depend_on_its_step(
    pair: tuple[NativeBackend, NativeBackend], temperature: float
) -> None:
    backend, _ = pair
    params = SamplingParams(temperature=temperature)
    uniforms = np.random.default_rng(4).random(LENGTH).tolist()
    together = tokens_of(drawn(backend, params, uniforms))
    kvs = [backend.kv_open(), backend.kv_open()]
    alone = []
    for i, uniform in enumerate(uniforms):
        one = Chunk(kvs[0], i, TOKENS[i : i + 1], [Draw(params, TOKENS[: i + 1], 1, uniform)])
        other = Chunk(kvs[1], i, TOKENS[-i - 1 :][:1], [Draw(GREEDY, TOKENS[:1], 1, 0.1)])
        alone.append(backend.step([one, other] if i % 2 else [one])[0][0].token)  # type: ignore[union-attr]
        if not i % 2:
            backend.step([dataclasses.replace(other, draws=())])
    assert alone == together


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logprobs_are_exact_and_change_no_token(
    pair: tuple[NativeBackend, NativeBackend], temperature: float
) -> None:
    screened, whole = pair
    uniforms = np.random.default_rng(5).random(LENGTH).tolist()
    plain = drawn(screened, SamplingParams(temperature=temperature), uniforms)
    asked = SamplingParams(temperature=temperature, logprobs=3)
    found = drawn(screened, asked, uniforms)
    assert tokens_of(found) == tokens_of(plain)
    kv = whole.kv_open()
    targets = np.array(tokens_of(found), np.int32)
    assert [choice.logprob for choice in found] == whole.score(kv, 0, TOKENS, targets, 3)


def test_scores_are_of_the_whole_head(pair: tuple[NativeBackend, NativeBackend]) -> None:
    found, want = (backend.score(backend.kv_open(), 0, TOKENS, TOKENS[1:], 2) for backend in pair)
    assert found == want


@pytest.mark.parametrize("params", [SamplingParams(temperature=0.35), SamplingParams(top_p=0.9)])
def test_sampling_keeps_the_distribution(
    pair: tuple[NativeBackend, NativeBackend], params: SamplingParams
) -> None:
    """Uniform numbers over the whole range, at one position: frequencies are the probabilities,
    in bins of about equal mass by rank, the tail among them."""
    screened, whole = pair
    params = dataclasses.replace(params, temperature=0.35)
    prompt, count = TOKENS[:9], 4096
    kv = whole.kv_open()
    logits = whole.logits(kv, 0, prompt)[-1].astype(np.float64)
    probabilities = np.exp((logits - logits.max()) / params.temperature)
    order = np.argsort(-probabilities)
    probabilities /= probabilities.sum()
    if params.top_p < 1:
        kept = np.searchsorted(np.cumsum(probabilities[order]), params.top_p) + 1
        probabilities[order[kept:]] = 0
        probabilities /= probabilities.sum()
    bins = np.minimum((np.cumsum(probabilities[order]) * 24).astype(int), 23)
    bin_of = np.empty(VOCAB, int)
    bin_of[order] = bins
    want = np.bincount(bin_of, probabilities, 24) * count
    before = np.array(screened._decoder.verdicts)
    kv = screened.kv_open()
    if len(prompt) > 1:
        screened.step([Chunk(kv, 0, prompt[:-1], ())])
    found = np.zeros(24)
    for i in range(count):
        draw = Draw(params, prompt, 1, (i + 0.5) / count)
        choice = screened.step([Chunk(kv, len(prompt) - 1, prompt[-1:], [draw])])[0][0]
        found[bin_of[choice.token]] += 1  # type: ignore[union-attr]
    decided, tail, left = np.array(screened._decoder.verdicts) - before
    assert decided > 0.8 * count and left == 0
    if params.top_p == 1:
        assert tail > 0
    some = want > 5
    assert np.sum((found[some] - want[some]) ** 2 / want[some]) < 50  # 99.9 % of chi-square 23
    assert abs(found[~some].sum() - want[~some].sum()) < 20


def test_states_that_are_not_finite(model: PackedMemory) -> None:
    broken = PackedMemory.__new__(PackedMemory)
    broken.__dict__.update(model.__dict__)
    broken.vectors = dict(model.vectors)
    name = model.spec.final_norm_name
    broken.vectors[name] = np.full_like(model.vectors[name], np.inf)
    for choice in drawn(NativeBackend(broken), tokens=TOKENS[:4]):
        assert isinstance(choice, LogitsError)


def test_a_plane_of_another_head_is_refused(model: PackedMemory) -> None:
    class Swapped(PackedMemory):
        def screen(self, name: str) -> Screen | None:
            return dataclasses.replace(build_screen(self.packed[name]), digest="sha256-0")

    swapped = Swapped.__new__(Swapped)
    swapped.__dict__.update(model.__dict__)
    with pytest.raises(LayoutError, match="belongs to another head"):
        NativeBackend(swapped)
    assert tokens_of(drawn(NativeBackend(swapped, screen=False)))


def test_small_vocabularies_are_read_whole_or_exactly() -> None:
    """All tokens are candidates, or too few are none to tell what the copy means."""
    for vocab in (100, 264, 330):
        packed, _ = packed_oracle("llama", "int8", vocab_size=vocab)
        packed.screened = True
        tokens = TOKENS[:16] % vocab
        for params in (GREEDY, SamplingParams(temperature=0.9)):
            found, want = (
                tokens_of(drawn(NativeBackend(packed, screen=screen), params, tokens=tokens))
                for screen in (True, False)
            )
            assert found == want
