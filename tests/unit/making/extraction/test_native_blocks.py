"""Blocks on the native engine against transformers' own modules and extraction by torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from oracles.packed_models import PackedMemory, packed_oracle
from oracles.tiny_models import CONFIGS, VOCAB

from subllm.errors import ExtractionError
from subllm.kernels.sparsity.packing import unpack, unpack_mask
from subllm.making.extraction.blocks.native_blocks import NativeBlocks
from subllm.making.extraction.extract import extract
from subllm.making.extraction.prepare import ExtractOptions
from subllm.making.pruning.method import Need
from subllm.models.store.collect import remove
from subllm.models.store.model_files import open_model
from subllm.progress import NullProgress

from .conftest import prepared_for, tokens_for
from .tiny import FAMILIES

SQUARES = frozenset({Need.SQUARE_SUMS})
SEQUENCES, LENGTH = 3, 270  # longer than a pass of the engine, and no multiple of anything


class Reader:
    """As much of a `WeightReader` as blocks use, over packed tensors in memory."""

    def __init__(self, packed: PackedMemory) -> None:
        self.spec, self._packed = packed.spec, packed

    def read(self, name: str) -> npt.NDArray[np.float32]:
        if name in self._packed.vectors:
            return self._packed.vectors[name]
        return unpack(self._packed.packed[name])

    def rows(self, name: str, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return self.read(name)[indices]

    def shape(self, name: str) -> tuple[int, ...]:
        return self.read(name).shape

    def release(self) -> None:
        pass


def whole_model(model: Any, tokens: npt.NDArray[np.int32]) -> tuple[list[torch.Tensor], Any, Any]:
    """Hidden states before each block and after the last one, the square sums of every
    matrix's input, and the logits: by transformers, in float64."""
    model = model.double()
    sums: dict[str, torch.Tensor] = {}

    def hook(name: str) -> Any:
        def see(module: Any, args: Any) -> None:
            rows = args[0].reshape(-1, args[0].shape[-1])
            sums[name] = sums.get(name, 0) + rows.square().sum(0)

        return see

    states: list[torch.Tensor] = []
    for index, layer in enumerate(model.model.layers):
        layer.register_forward_pre_hook(
            lambda module, args, named: states.append(args[0] if args else named["hidden_states"]),
            with_kwargs=True,
        )
        for name, module in layer.named_modules():
            if isinstance(module, torch.nn.Linear):
                module.register_forward_pre_hook(hook(f"{index}.{name}"))
    model.model.layers[-1].register_forward_hook(
        lambda module, args, out: states.append(out[0] if isinstance(out, tuple) else out)
    )
    with torch.no_grad():
        logits = model(torch.from_numpy(tokens.astype(np.int64)), use_cache=False).logits
    return states, sums, logits


@pytest.mark.parametrize("family", CONFIGS)
def test_states_statistics_and_scores_are_those_of_the_whole_model(family: str) -> None:
    packed, model = packed_oracle(family)
    tokens = np.random.default_rng(1).integers(0, VOCAB, (SEQUENCES, LENGTH)).astype(np.int32)
    want, sums, logits = whole_model(model, tokens)
    blocks = NativeBlocks(Reader(packed), threads=2, exact=True)  # type: ignore[arg-type]
    spec = blocks.spec
    states = blocks.embed(tokens, 2)
    for layer in range(spec.num_layers):
        torch.testing.assert_close(states.double(), want[layer], rtol=0, atol=2e-4)
        blocks.load(layer)
        prefix = spec.block_prefix(layer)
        own = {lin.name: packed.tensor(f"{prefix}{lin.name}.weight") for lin in spec.linears}
        blocks.ship(layer, own)  # the exact weights, in bf16
        before = states.clone()
        statistics = blocks.collect(layer, states, 2, SQUARES)
        assert torch.equal(states, before)
        for linear in spec.linears:
            got = statistics[linear.group]
            assert got.tokens == SEQUENCES * LENGTH
            torch.testing.assert_close(
                got[Need.SQUARE_SUMS], sums[f"{layer}.{linear.name}"], rtol=1e-4, atol=1e-3
            )
        states = torch.cat([blocks.run(layer, part) for part in states.split(2)])
        blocks.unload(layer)
    torch.testing.assert_close(states.double(), want[-1], rtol=0, atol=2e-4)

    flat = states[:, :-1].reshape(-1, spec.hidden_size)
    gold = torch.from_numpy(tokens[:, 1:].astype(np.int64)).reshape(-1)
    expected = torch.log_softmax(logits[:, :-1].reshape(-1, VOCAB), -1)
    scores = blocks.score(flat, gold, packed.tensor(spec.head_name))
    likely = expected.gather(1, gold[:, None])[:, 0]
    torch.testing.assert_close(scores.log_probs.double(), likely, rtol=0, atol=2e-4)
    chosen = expected.gather(1, scores.choices[:, None])[:, 0]
    torch.testing.assert_close(chosen, expected.max(-1).values, rtol=0, atol=4e-4)


def made(store, compute: str, **changes: Any):
    held = {"python": tokens_for(3, 20, seed=5)}
    options = ExtractOptions("python", compute=compute, heldout=held, tag=compute, **changes)
    return extract(store, prepared_for(store, options, samples=16, length=40), NullProgress())


@pytest.mark.parametrize("family", FAMILIES)
def test_an_extraction_comes_out_as_by_torch(store, add_base, family: str) -> None:
    """Masks and perplexities of int8 products are near those of float32 ones."""
    add_base(family)
    fast, exact = made(store, "int8"), made(store, "float32")
    assert fast.manifest.plan != exact.manifest.plan
    run = store.run_record(fast.digest)
    assert run is not None and run.compute == "int8"
    same = total = 0
    with open_model(store, fast.name) as mine, open_model(store, exact.name) as theirs:
        for entry in fast.manifest.tensors:
            if entry.blob == "own":
                one, other = (unpack_mask(m.tensor(entry.name)) for m in (mine, theirs))
                same, total = same + int((one == other).sum()), total + one.size
    assert 0.97 < same / total < 1
    a, b = fast.manifest.perplexity["python"], exact.manifest.perplexity["python"]
    assert a.before == pytest.approx(b.before, rel=0.01)
    assert a.after == pytest.approx(b.after, rel=0.02)
    assert a.tokens == b.tokens


@pytest.mark.parametrize("pattern", ["50%", "2:4"])
def test_threads_do_not_change_the_result(store, add_base, monkeypatch, pattern: str) -> None:
    add_base("qwen2")
    digests = []
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        report = made(store, "int8", pattern=pattern, values="int4")
        assert not report.cached
        digests.append(report.digest)
        remove(store, report.name)
    assert digests[0] == digests[1]


def test_magnitude_measures_its_loss_natively_too(store, add_base) -> None:
    add_base("llama")
    fast, exact = (made(store, c, method="magnitude") for c in ("int8", "float32"))
    assert fast.manifest.blobs.own == exact.manifest.blobs.own
    assert fast.manifest.perplexity["python"].after == pytest.approx(
        exact.manifest.perplexity["python"].after, rel=0.01
    )


def test_what_the_engine_refuses_is_said(tmp_path: Path) -> None:
    packed, _ = packed_oracle("llama")
    packed.spec = replace(packed.spec, rope_theta=-1.0)
    blocks = NativeBlocks(Reader(packed), threads=1)  # type: ignore[arg-type]
    with pytest.raises(ExtractionError, match=r"the native engine refused block 0: .*rope"):
        blocks.load(0)
