"""Asks the base model the tasks that nobody has answered yet (see answers.py)."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from answers import Sampling, end_line, read_answers, rotation
from tasks import Task

from subllm.engine.engine import LocalEngine
from subllm.engine.limits import EngineLimits
from subllm.engine.loader import load_engine
from subllm.engine.request import Request, SamplingParams
from subllm.models.store.store import Store
from subllm.models.store.tokenizers import open_tokenizer
from subllm.models.text.chat_prompt import encode_chat
from subllm.models.text.chat_template import ChatTemplate
from subllm.models.text.tokenizer import Tokenizer

ANSWER_ROOM = 1024  # tokens of KV memory for a request and its answer
ANSWERS_FILE = "answers.jsonl"


@dataclass(frozen=True)
class Run:
    """What one call generates. `slots` answers decode together: reading the weights once
    for many tokens is what makes it fast."""

    directory: Path
    counts: Mapping[str, int]
    slots: int
    minutes: float
    sampling: Sampling


def generate(run: Run, store: Store, model: str) -> None:
    """Answer the open tasks of the rotation with `model` of the store, for at most
    `minutes`. Each task draws from a random stream of its own."""
    run.directory.mkdir(parents=True, exist_ok=True)
    known = read_answers(run.directory)
    numbered = rotation(run.counts, run.sampling.seed)
    open_tasks = {task.id: (number, task) for number, task in numbered if task.id not in known}
    if not open_tasks:
        return
    engine = load_engine(
        store,
        model,
        limits=EngineLimits(
            max_batch=run.slots,
            queue_limit=len(open_tasks),
            kv_tokens=ANSWER_ROOM * run.slots,
        ),
    )
    manifest = store.model(model)
    tokenizer = open_tokenizer(store, manifest)
    template = ChatTemplate(tokenizer.chat_template or "", tokenizer.bos_token, tokenizer.eos_token)
    for number, task in open_tasks.values():
        engine.add(_request(task, number, tokenizer, template, run.sampling))
    try:
        by = f"subllm engine, {manifest.values} weights, {manifest.head} head"
        _collect(run, engine, by, len(open_tasks))
    finally:
        engine.close()


def _request(
    task: Task, number: int, tokenizer: Tokenizer, template: ChatTemplate, sampling: Sampling
) -> Request:
    prompt = encode_chat(template, tokenizer, [{"role": "user", "content": task.request}])
    params = SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_new,
        seed=sampling.seed * 1_000_003 + number,
    )
    return Request(task.id, tuple(prompt), params)


def _collect(run: Run, engine: LocalEngine, by: str, wanted: int) -> None:
    """Write every answer as it ends. `by` says what ran the base, which packs record:
    rounding makes other answers."""
    path = run.directory / ANSWERS_FILE
    end_line(path)
    texts: dict[str, str] = {}
    start, made, tokens = time.monotonic(), 0, 0
    with path.open("a") as file:
        while engine.has_work():
            for event in engine.step():
                if event.error is not None:
                    raise event.error
                text = texts.pop(event.request_id, "") + event.text
                if event.finish_reason is None:
                    texts[event.request_id] = text
                    continue
                answer = {
                    "id": event.request_id,
                    "by": by,
                    "ended": event.finish_reason == "stop",
                    "tokens": event.completion_tokens,
                    "text": text,
                }
                file.write(json.dumps(answer, ensure_ascii=False) + "\n")
                file.flush()
                made, tokens = made + 1, tokens + event.completion_tokens
                spent = time.monotonic() - start
                print(
                    f"{made}/{wanted} {event.request_id} {event.completion_tokens} tokens"
                    f"{'' if answer['ended'] else ' (cut)'}, {tokens / spent:.0f} tok/s",
                    file=sys.stderr,
                )
                if spent > run.minutes * 60:
                    return
