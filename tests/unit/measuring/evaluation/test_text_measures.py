"""Perplexity and agreement against transformers with the very same weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracles.packed_models import packed_oracle, store_model
from oracles.tiny_models import tokenizer

from subllm.engine.computing import Computing
from subllm.engine.limits import EngineLimits
from subllm.engine.loader import load_engine
from subllm.engine.request import Engine
from subllm.errors import BenchmarkError, UsageError
from subllm.measuring.evaluation.bench import Bench, TextSide
from subllm.measuring.evaluation.held_out import held_out
from subllm.measuring.evaluation.measures.agreement import Agreement
from subllm.measuring.evaluation.measures.perplexity import Perplexity
from subllm.measuring.evaluation.measures.text import HeldOutText, TextMeasure
from subllm.measuring.evaluation.record_file import read_records
from subllm.measuring.evaluation.records import Compared, Result, ScoredText, Summary
from subllm.models.catalog.prompt import PromptSpec
from subllm.models.store.manifest import sha256_of
from subllm.models.store.store import Store
from subllm.progress import NullProgress

MODEL, DENSE = "tiny:1m-python", "tiny:1m-dense"
TOKENS = np.random.default_rng(0).integers(0, 256, (4, 20)).astype(np.int32)
NEW = 9


class Given(HeldOutText):
    """TOKENS, whatever the tokenizer."""

    def __init__(self) -> None:
        super().__init__("python", 4, 20, None)

    def tokens(self, text: TextSide) -> Any:
        return TOKENS, "random"


class Exact:
    """Opens engines that compute in float32, and counts them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.opened: list[str] = []
        self.engines: list[Engine] = []

    def __call__(self, model: str, together: int, longest: int) -> Engine:
        engine = load_engine(
            self.store,
            model,
            computing=Computing(backend="native", threads=1, dtype="float32"),
            limits=EngineLimits(max_batch=together),
            context_length=longest,
        )
        self.opened.append(model)
        self.engines.append(engine)
        return engine

    def tools(self) -> dict[str, str]:
        return {"backend": "native in float32"}

    def close(self) -> None:
        for engine in self.engines:
            engine.close()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A store with a model and its dense relative, and both in transformers."""
    root = tmp_path_factory.mktemp("models") / "home"
    pruned, small = packed_oracle("qwen2", "int8", "8:16")
    whole, large = packed_oracle("qwen2", "int8", "dense")
    store_model(root, whole, DENSE)
    return {"store": store_model(root, pruned, MODEL), MODEL: small, DENSE: large}


@pytest.fixture
def open_engine(models: dict[str, Any]) -> Iterator[Exact]:
    opener = Exact(models["store"])
    yield opener
    opener.close()


def logits(model: Any, tokens: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.tensor([tokens])).logits[0].double()


def measured(measure: TextMeasure[Any], engines: Exact, directory: Path, model: str) -> Result:
    return measure.run(Bench(engines.store, engines, directory, NullProgress()), model)


def perplexity(engines: Exact, directory: Path) -> Result:
    return measured(Perplexity(Given()), engines, directory, MODEL)


def agreement(engines: Exact, directory: Path, model: str = MODEL) -> Result:
    return measured(Agreement(Given(), NEW), engines, directory, model)


def test_perplexity_is_that_of_transformers(
    models: dict[str, Any], open_engine: Exact, tmp_path: Path
) -> None:
    result = perplexity(open_engine, tmp_path)
    losses = []
    for row in TOKENS.tolist():
        chances = logits(models[MODEL], row).log_softmax(-1)
        losses += [-float(chances[i, row[i + 1]]) for i in range(len(row) - 1)]
    assert result.figures["tokens"] == len(losses) == 4 * 19
    assert result.figures["perplexity"] == pytest.approx(
        math.exp(sum(losses) / len(losses)), rel=1e-4
    )
    header, lines = read_records(result.path)
    assert [line.kind for line in lines] == ["scored"] * 4 + ["summary"]
    assert (header.task, header.data.source, header.data.rows) == ("perplexity", "random", 4)


def test_perplexity_goes_on_where_it_was(
    models: dict[str, Any], open_engine: Exact, tmp_path: Path
) -> None:
    whole = perplexity(open_engine, tmp_path)
    text = whole.path.read_text()
    kept = text.splitlines(keepends=True)[:3]  # the header and two sequences
    whole.path.write_text("".join(kept) + '{"kind":"sco')
    again = perplexity(open_engine, tmp_path)
    assert again.figures["perplexity"] == whole.figures["perplexity"]
    assert again.new == 2
    opened = len(open_engine.opened)
    third = perplexity(open_engine, tmp_path)
    assert (third.new, third.figures) == (0, again.figures)
    assert len(open_engine.opened) == opened  # nothing to score, nothing opened
    _, lines = read_records(again.path)
    assert [line.index for line in lines if isinstance(line, ScoredText)] == [0, 1, 2, 3]
    assert sum(isinstance(line, Summary) for line in lines) == 1


def test_agreement_is_that_of_transformers(
    models: dict[str, Any], open_engine: Exact, tmp_path: Path
) -> None:
    result = agreement(open_engine, tmp_path)
    agreed, common = [], []
    for row in TOKENS.tolist():
        text = list(row)
        for _ in range(NEW):
            text.append(int(logits(models[DENSE], text)[-1].argmax()))
        chosen = logits(models[MODEL], text).argmax(-1).tolist()
        same = [chosen[i - 1] == text[i] for i in range(len(row), len(text))]
        agreed.append(sum(same))
        common.append((same + [False]).index(False))  # noqa: RUF005
    _, lines = read_records(result.path)
    compared = [line for line in lines if isinstance(line, Compared)]
    assert [line.agreed for line in compared] == agreed
    assert [line.common for line in compared] == common
    assert result.figures["agreement"] == sum(agreed) / (4 * NEW)
    assert 0 < result.figures["agreement"] < 1
    assert result.figures["common_tokens"] == sum(common) / 4
    assert open_engine.opened == [DENSE, MODEL]


def test_a_model_agrees_with_itself(
    models: dict[str, Any], open_engine: Exact, tmp_path: Path
) -> None:
    figures = agreement(open_engine, tmp_path, DENSE).figures
    assert (figures["agreement"], figures["common_tokens"]) == (1.0, NEW)


def test_agreement_of_models_of_other_bases(
    models: dict[str, Any], open_engine: Exact, tmp_path: Path
) -> None:
    store = models["store"]
    manifest = store.model(MODEL)
    base = manifest.base.model_copy(update={"manifest": sha256_of(b"other")})
    name = "tiny:1m-python-foreign"
    store.set_ref(name, store.put_manifest(manifest.model_copy(update={"base": base})))
    with pytest.raises(UsageError, match="tiny:1m-dense was made from another base"):
        agreement(open_engine, tmp_path, name)


def test_what_decides_an_agreement(models: dict[str, Any], tmp_path: Path) -> None:
    store, side = models["store"], TextSide("tiny:1m", tokenizer(), PromptSpec(context_length=64))
    facts = Agreement(Given()).facts(store, side)
    assert facts["dense"] == store.resolve(DENSE)
    assert Agreement(Given(), NEW).facts(store, side) != facts


def test_held_out_text_of_a_pack() -> None:
    tokens, source = held_out("python", tokenizer(), PromptSpec(context_length=64), length=32)
    assert tokens.shape == (8, 32)
    assert source == "pack:python (held out)"


def test_held_out_text_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text('{"text": "abcdefghij"}\n{"text": "klmnopqrst"}\n')
    prompt = PromptSpec(context_length=64)
    tokens, source = held_out("python", tokenizer(), prompt, length=8, path=path)
    assert tokens.shape == (2, 8)  # 22 tokens, never repeated
    assert source.startswith("jsonl:")
    with pytest.raises(BenchmarkError, match="give more text"):
        held_out("python", tokenizer(), prompt, length=64, path=path)
    with pytest.raises(BenchmarkError, match=r"no directory and no \.jsonl"):
        held_out("python", tokenizer(), prompt, path=tmp_path / "no")
