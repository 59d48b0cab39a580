"""What tests of the domains' tasks share: a tiny model, files of rows, a run of a task."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subllm.measuring.evaluation import lm_eval
from subllm.measuring.evaluation.domains import domain_task
from subllm.measuring.evaluation.lm_eval.answers import AnswerCache, Effort
from subllm.measuring.evaluation.lm_eval.rows import TaskRows, load_rows
from subllm.measuring.evaluation.lm_eval.run import Asking, run_task
from subllm.measuring.evaluation.measures.domain import figures_of
from subllm.measuring.evaluation.meteor import load_meteor
from subllm.measuring.evaluation.records import Question

from .test_lm_eval_model import TOKENIZER, packed_oracle

CONTEXT = 1200
PACKED, REFERENCE = packed_oracle("llama", max_position_embeddings=2048)


@dataclass(frozen=True)
class Asked:
    rows: TaskRows
    questions: list[Question]
    effort: Effort
    figures: dict[str, Any]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(
    engine: Any,
    task: str,
    data: Path | None,
    *,
    limit: int | None = None,
    seed: int = 0,
    cache: AnswerCache | None = None,
    offline: bool = False,
) -> Asked:
    """A task on an engine, without a store."""
    entry = domain_task(task)
    lm_eval.require()
    rows = load_rows(entry, data, limit=limit, seed=seed, offline=offline)
    meteor = load_meteor() if entry.metric == "meteor" else None
    asking = Asking(seed, together=8, cache=cache)
    questions, effort = run_task(engine, TOKENIZER, entry, rows, meteor, asking, run="")
    return Asked(rows, questions, effort, figures_of(questions, seed))
