"""How often a sub-model would write what its dense base writes.

The base goes on greedily from some prompts. The sub-model is then asked, at each token of
that text, which token it would have chosen. So one pass tells both how many tokens agree
and how far the two would have written the same text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from subllm.engine.request import Engine, SamplingParams
from subllm.measuring.evaluation.bench import Bench, TextSide
from subllm.measuring.evaluation.generate import Ask, generate
from subllm.measuring.evaluation.measures.dense import dense_of
from subllm.measuring.evaluation.measures.measure import Load
from subllm.measuring.evaluation.measures.text import HeldOutText, Ids, TextMeasure
from subllm.measuring.evaluation.records import Compared
from subllm.models.store.names import model_name
from subllm.models.store.store import Store
from subllm.progress import Progress, bar

PROMPTS = 32
PROMPT_TOKENS = 128
NEW_TOKENS = 64
_TOGETHER = 16


class Agreement(TextMeasure[Compared]):
    """Of a model with the dense model of its base, over `new_tokens` tokens after each prompt."""

    task = "agreement"
    kind = Compared

    def __init__(self, text: HeldOutText, new_tokens: int = NEW_TOKENS) -> None:
        super().__init__(text)
        self._new_tokens = new_tokens

    def facts(self, store: Store, text: TextSide) -> dict[str, Any]:
        dense = store.names().get(model_name(text.base, "dense"), "")
        return {**super().facts(store, text), "dense": dense, "new tokens": self._new_tokens}

    def load(self, text: TextSide) -> Load:
        prompts, _ = self._text.tokens(text)
        new = len(prompts) * self._new_tokens
        return Load(prompt_tokens=float(2 * prompts.size + new), new_tokens=float(new))

    def tools(self, bench: Bench, model: str) -> dict[str, str]:
        """Raises UsageError where there is no dense model, or one of another base."""
        dense = dense_of(bench.store, model)
        return {"dense": bench.store.resolve(dense), "new tokens": str(self._new_tokens)}

    def lines(
        self, bench: Bench, model: str, sequences: Mapping[int, Ids], run: str
    ) -> Iterator[Compared]:
        longest = max(map(len, sequences.values())) + self._new_tokens
        engine = bench.engines(dense_of(bench.store, model), _TOGETHER, longest)
        texts = _continue(engine, sequences, self._new_tokens, bench.progress)
        engine = bench.engines(model, _TOGETHER, longest)
        with bar(bench.progress, "compare", "comparing tokens", len(sequences), "items"):
            for index, prompt in sequences.items():
                agreed = _agreed(engine, prompt, texts[index])
                yield Compared(
                    run=run,
                    index=index,
                    tokens=len(agreed),
                    agreed=sum(agreed),
                    common=[*agreed, False].index(False),
                )
                bench.progress.advance("compare")

    def figures(self, bench: Bench, model: str, lines: Sequence[Compared]) -> dict[str, Any]:
        count = sum(line.tokens for line in lines)
        return {
            "dense": dense_of(bench.store, model),
            self.task: sum(line.agreed for line in lines) / count,
            "common_tokens": sum(line.common for line in lines) / len(lines),
            "tokens": count,
            "tokens_per_prompt": self._new_tokens,
        }


def _continue(
    engine: Engine, prompts: Mapping[int, Ids], new_tokens: int, progress: Progress
) -> dict[int, Ids]:
    """Greedy tokens after each prompt. End tokens do not end it, so that all count alike."""
    params = SamplingParams(max_tokens=new_tokens, ignore_eos=True)
    asks = [Ask(str(index), prompt, params) for index, prompt in prompts.items()]
    texts: dict[int, Ids] = {}
    with bar(progress, "dense", "dense base", len(asks), "items"):
        for answer in generate(engine, asks, _TOGETHER):
            texts[int(answer.id)] = answer.ids
            progress.advance("dense")
    return texts


def _agreed(engine: Engine, prompt: Ids, text: Ids) -> list[bool]:
    """For each token of `text`, whether the engine's first choice is the same."""
    scores = engine.score(prompt + text, top=1)[len(prompt) :]
    return [
        score is not None and score.top[0][0] == token
        for score, token in zip(scores, text, strict=True)
    ]
