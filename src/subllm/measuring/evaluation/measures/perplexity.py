"""Perplexity of held-out text: exp of the mean negative log-likelihood of a token, of each
token but the first of a sequence, given those before it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from subllm.measuring.evaluation.bench import Bench
from subllm.measuring.evaluation.measures.text import Ids, TextMeasure
from subllm.measuring.evaluation.records import ScoredText
from subllm.progress import bar


class Perplexity(TextMeasure[ScoredText]):
    task = "perplexity"
    kind = ScoredText

    def lines(
        self, bench: Bench, model: str, sequences: Mapping[int, Ids], run: str
    ) -> Iterator[ScoredText]:
        engine = bench.engines(model, 1, max(map(len, sequences.values())))
        title = f"scoring {self.language}"
        with bar(bench.progress, "score", title, len(sequences), "items"):
            for index, ids in sequences.items():
                scores = engine.score(ids)
                nll = -math.fsum(score.logprob for score in scores if score is not None)
                yield ScoredText(run=run, index=index, tokens=len(scores) - 1, nll=nll)
                bench.progress.advance("score")

    def figures(self, bench: Bench, model: str, lines: Sequence[ScoredText]) -> dict[str, Any]:
        count = sum(line.tokens for line in lines)
        return {
            self.task: math.exp(math.fsum(line.nll for line in lines) / count),
            "tokens": count,
        }
