"""Asks the base model the tasks that nobody has answered yet (see answers.py)."""

from __future__ import annotations

import json
import multiprocessing
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from answers import Sampling, end_line, read_answers, rotation
from generate import Generator
from transformers.initialization import no_init_weights

from subllm.text.chat_template import ChatTemplate
from subllm.text.tokenizer import Tokenizer
from subllm.weights.open import open_weights
from subllm.weights.reader import WeightReader


@dataclass(frozen=True)
class Run:
    """What one call generates. Each worker is a process with one thread and `slots`
    sequences: on shared cores, threads that wait for each other lose most of the time."""

    base: tuple[Path, ...]
    directory: Path
    counts: Mapping[str, int]
    slots: int
    workers: int
    minutes: float
    sampling: Sampling


def generate(run: Run) -> None:
    """Answer the open tasks of the rotation for at most `minutes`.

    Raises SystemExit when a worker fails."""
    run.directory.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the workers end as well
    workers = [context.Process(target=work, args=(run, w), daemon=True) for w in range(run.workers)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise SystemExit("a generating worker failed; see above, then run this again")


def work(run: Run, worker: int) -> None:
    """One worker's share, in this process: every task whose place in the rotation is
    `worker` modulo the number of workers."""
    torch.set_num_threads(1)
    known = read_answers(run.directory)
    numbered = rotation(run.counts, run.sampling.seed)
    mine = numbered[worker :: run.workers]
    open_tasks = {number: task for number, task in mine if task.id not in known}
    if not open_tasks:
        return
    reader = open_weights(run.base)
    tokenizer = Tokenizer.from_files(reader.tokenizer_files())
    template = ChatTemplate(tokenizer.chat_template or "", tokenizer.bos_token, tokenizer.eos_token)
    prompts = [
        (number, tokenizer.encode(template.render([{"role": "user", "content": task.request}])))
        for number, task in open_tasks.items()
    ]
    stops = frozenset(tokenizer.eos_ids)
    generator = Generator(load_model(reader), stops, run.sampling, run.slots)
    path = run.directory / f"worker-{worker}.jsonl"
    end_line(path)
    start, made, tokens = time.monotonic(), 0, 0
    with path.open("a") as file:
        for finished in generator.run(prompts):
            task = open_tasks[finished.index]
            answer = {
                "id": task.id,
                "ended": finished.ended,
                "tokens": len(finished.tokens),
                "text": tokenizer.decode(finished.tokens),
            }
            file.write(json.dumps(answer, ensure_ascii=False) + "\n")
            file.flush()
            made, tokens = made + 1, tokens + len(finished.tokens)
            spent = time.monotonic() - start
            print(
                f"worker {worker}: {made}/{len(prompts)} {task.id} {len(finished.tokens)} tokens"
                f"{'' if finished.ended else ' (cut)'}, {tokens / spent:.1f} tok/s",
                file=sys.stderr,
            )
            if spent > run.minutes * 60:
                return


def load_model(reader: WeightReader) -> transformers.PreTrainedModel:
    """The base as a transformers model in bfloat16."""
    config = transformers.AutoConfig.for_model(**reader.config)
    with no_init_weights():
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    state = dict(_tensors(reader))
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or (set(missing) - {"lm_head.weight"}):
        raise SystemExit(f"weights do not fit the model: {[*missing, *unexpected][:4]}")
    model.tie_weights()
    reader.release()
    return model


def _tensors(reader: WeightReader) -> Iterator[tuple[str, torch.Tensor]]:
    for name in reader.names():
        yield name, torch.from_numpy(reader.read(name)).to(torch.bfloat16)
