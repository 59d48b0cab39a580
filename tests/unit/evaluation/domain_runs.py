"""What tests of the domains' tasks share: a tiny model, files of rows, a run of a task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from subllm.evaluation.domains import DomainResult, run_domain

from .test_lm_eval_model import TOKENIZER, packed_oracle

CONTEXT = 1200
PACKED, REFERENCE = packed_oracle("llama", max_position_embeddings=2048)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(engine: Any, task: str, data: Path | None, **options: Any) -> DomainResult:
    return run_domain(engine, TOKENIZER, task, data=data, **options)
