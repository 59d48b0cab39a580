"""How often a sub-model would write what its dense base writes.

The base goes on greedily from some prompts. The sub-model is then asked, at each token of
that text, which token it would have chosen. So one pass tells both how many tokens agree
and how far the two would have written the same text.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from subllm.calibration.sampler import digest
from subllm.errors import UsageError
from subllm.evaluation.engines import OpenEngine
from subllm.evaluation.facts import machine_facts, model_facts, now
from subllm.evaluation.generate import Ask, generate
from subllm.evaluation.records import (
    HARNESS,
    Compared,
    DataFacts,
    RecordFile,
    Result,
    RunHeader,
    Summary,
)
from subllm.progress import Progress
from subllm.runtime.request import Engine, SamplingParams
from subllm.store.store import Store

PROMPTS = 32
PROMPT_TOKENS = 128
NEW_TOKENS = 64
_TOGETHER = 16

Ids = tuple[int, ...]


def measure_agreement(
    store: Store,
    model: str,
    dense: str,
    language: str,
    tokens: npt.NDArray[np.int32],
    source: str,
    open_engine: OpenEngine,
    directory: Path,
    progress: Progress,
    *,
    new_tokens: int = NEW_TOKENS,
    tools: tuple[tuple[str, str], ...] = (),
    threads: int | None = None,
) -> Result:
    """Of `model` with `dense`, over `new_tokens` tokens after each prompt.

    tokens  the prompts, int32 [prompts, length]; source: where they are from
    Goes on where an earlier run was. Raises UsageError when the two have not the same base,
    as the engine does, LockedError.
    """
    facts, other = model_facts(store, model), model_facts(store, dense)
    if facts.base_digest != other.base_digest:
        raise UsageError(f"{dense} was made from another base than {model}; add that one again")
    header = RunHeader(
        task="agreement",
        language=language,
        model=facts,
        data=DataFacts(source=source, form="tokens", digest=digest(tokens), rows=len(tokens)),
        harness=HARNESS,
        tools={**dict(tools), "dense": other.digest, "new tokens": str(new_tokens)},
        machine=machine_facts(threads),
        created=now(),
    )
    prompts = [tuple(row) for row in tokens.tolist()]
    with RecordFile(directory, header) as records:
        began = time.monotonic()
        done = {line.index for line in records.of(Compared)}
        missing = [index for index in range(len(prompts)) if index not in done]
        if missing:
            longest = max(len(prompts[index]) for index in missing) + new_tokens
            engine = open_engine(dense, _TOGETHER, longest)
            texts = _continue(engine, {i: prompts[i] for i in missing}, new_tokens, progress)
            engine = open_engine(model, _TOGETHER, longest)
            progress.start("compare", "comparing tokens", len(missing), "items")
            try:
                for index in missing:
                    agreed = _agreed(engine, prompts[index], texts[index])
                    line = Compared(
                        run=records.key,
                        index=index,
                        tokens=len(agreed),
                        agreed=sum(agreed),
                        common=[*agreed, False].index(False),
                    )
                    records.append(line)
                    progress.advance("compare")
            finally:
                progress.finish("compare")
        lines = list(records.of(Compared))
        count = sum(line.tokens for line in lines)
        figures: dict[str, Any] = {
            "dense": dense,
            "agreement": sum(line.agreed for line in lines) / count,
            "common_tokens": sum(line.common for line in lines) / len(lines),
            "tokens": count,
            "tokens_per_prompt": new_tokens,
        }
        if missing:
            figures["wall_seconds"] = round(time.monotonic() - began, 2)
            records.append(Summary(run=records.key, figures=figures))
        return Result(header, figures, records.path, len(missing))


def _continue(
    engine: Engine, prompts: dict[int, Ids], new_tokens: int, progress: Progress
) -> dict[int, Ids]:
    """Greedy tokens after each prompt. End tokens do not end it, so that all count alike."""
    params = SamplingParams(max_tokens=new_tokens, ignore_eos=True)
    asks = [Ask(str(index), prompt, params) for index, prompt in prompts.items()]
    texts: dict[int, Ids] = {}
    progress.start("dense", "dense base", len(asks), "items")
    try:
        for answer in generate(engine, asks, _TOGETHER):
            texts[int(answer.id)] = answer.ids
            progress.advance("dense")
    finally:
        progress.finish("dense")
    return texts


def _agreed(engine: Engine, prompt: Ids, text: Ids) -> list[bool]:
    """For each token of `text`, whether the engine's first choice is the same."""
    scores = engine.score(prompt + text, top=1)[len(prompt) :]
    return [
        score is not None and score.top[0][0] == token
        for score, token in zip(scores, text, strict=True)
    ]
