"""Perplexity of held-out text: exp of the mean negative log-likelihood of a token."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from subllm.calibration.sampler import digest
from subllm.evaluation.engines import OpenEngine
from subllm.evaluation.facts import machine_facts, model_facts, now
from subllm.evaluation.records import (
    HARNESS,
    DataFacts,
    RecordFile,
    Result,
    RunHeader,
    ScoredText,
    Summary,
)
from subllm.progress import Progress
from subllm.store.store import Store


def measure_perplexity(
    store: Store,
    model: str,
    language: str,
    tokens: npt.NDArray[np.int32],
    source: str,
    open_engine: OpenEngine,
    directory: Path,
    progress: Progress,
    *,
    tools: tuple[tuple[str, str], ...] = (),
    threads: int | None = None,
) -> Result:
    """Of `tokens`, int32 [sequences, length] and in the model's own vocabulary: each token
    but the first of a sequence, given those before it.

    source  where the text is from, for the record
    Goes on where an earlier run was. Raises as the engine does, LockedError.
    """
    header = RunHeader(
        task="perplexity",
        language=language,
        model=model_facts(store, model),
        data=DataFacts(source=source, form="tokens", digest=digest(tokens), rows=len(tokens)),
        harness=HARNESS,
        tools=dict(tools),
        machine=machine_facts(threads),
        created=now(),
    )
    with RecordFile(directory, header) as records:
        began = time.monotonic()
        done = {line.index for line in records.of(ScoredText)}
        missing = [index for index in range(len(tokens)) if index not in done]
        if missing:
            engine = open_engine(model, 1, tokens.shape[1])
            progress.start("score", f"scoring {language}", len(missing), "items")
            try:
                for index in missing:
                    scores = engine.score(tuple(tokens[index].tolist()))
                    nll = -math.fsum(score.logprob for score in scores if score is not None)
                    line = ScoredText(run=records.key, index=index, tokens=len(scores) - 1, nll=nll)
                    records.append(line)
                    progress.advance("score")
            finally:
                progress.finish("score")
        lines = list(records.of(ScoredText))
        count = sum(line.tokens for line in lines)
        figures: dict[str, Any] = {
            "perplexity": math.exp(math.fsum(line.nll for line in lines) / count),
            "tokens": count,
        }
        if missing:
            figures["wall_seconds"] = round(time.monotonic() - began, 2)
            records.append(Summary(run=records.key, figures=figures))
        return Result(header, figures, records.path, len(missing))
