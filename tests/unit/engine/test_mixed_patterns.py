"""Models whose matrices differ in pattern, dense ones among them, on both backends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from oracles.packed_models import MIXED, NAME, packed_oracle, store_model
from oracles.tiny_models import VOCAB

from subllm.engine.computing import Computing
from subllm.engine.loader import load_engine
from subllm.engine.request import Request, SamplingParams

PROMPT = tuple(np.random.default_rng(3).integers(0, VOCAB, 70).tolist())


@pytest.mark.parametrize("backend", ["native", "torch"])
@pytest.mark.parametrize("values", ["bf16", "int8", "int4"])
def test_a_mixed_model_is_scored_as_by_transformers(
    tmp_path: Path, backend: str, values: str
) -> None:
    packed, reference = packed_oracle("llama", values, "mixed")
    inner = [tensor.pattern for name, tensor in packed.packed.items() if ".layers." in name]
    assert set(inner) == set(MIXED)
    store = store_model(tmp_path / "home", packed)
    engine = load_engine(store, NAME, computing=Computing(backend=backend, device="cpu"))
    ids = torch.tensor([PROMPT])
    with torch.no_grad():
        expected = reference(ids).logits[0].double().log_softmax(-1)
    wanted = expected[:-1].gather(1, ids[0, 1:, None])[:, 0].numpy()
    scored = np.array([scored.logprob for scored in engine.score(PROMPT) if scored])
    # Serving rounds activations; a matrix read under another's pattern would be far off.
    assert np.abs(scored - wanted).mean() < 0.1 * expected.std()


def test_greedy_text_is_the_same_alone_and_beside_others(tmp_path: Path) -> None:
    packed, _ = packed_oracle("qwen2", "int8", "mixed")
    store = store_model(tmp_path / "home", packed)
    engine = load_engine(store, NAME, computing=Computing(backend="native"))

    def texts(*prompts: tuple[int, ...]) -> list[list[int]]:
        found: dict[str, list[int]] = {}
        for index, prompt in enumerate(prompts):
            found[str(index)] = []
            params = SamplingParams(max_tokens=8, temperature=0, ignore_eos=True)
            engine.add(Request(str(index), prompt, params))
        while engine.has_work():
            for event in engine.step():
                found[event.request_id] += event.tokens
        return [found[str(index)] for index in range(len(prompts))]

    prompts = PROMPT[:20], PROMPT[5:60], PROMPT[30:45]
    assert texts(*prompts) == [texts(prompt)[0] for prompt in prompts]
