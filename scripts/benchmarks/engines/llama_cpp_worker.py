"""Worker of llama.cpp: llama_cpp_worker.py GGUF THREADS PROMPT_TOKENS TOKENS.

Runs in the environment of llama-cpp-python and calls llama.cpp's own functions, not the
Python layer above them, with its defaults: a decoded token costs llama_decode and the
greedy sampler. The workloads are those of subllm.engine.measure.
"""

from __future__ import annotations

import ctypes
import random
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import llama_cpp as lib
from worker import own_output, serve

DECODE_PROMPT = 64
FIRST_PROMPT = 16
SEQUENCES = 8


class Context:
    """A context of one model for `sequences` sequences of at most `length` tokens."""

    def __init__(self, model: Any, sequences: int, length: int, threads: int) -> None:
        params = lib.llama_context_default_params()
        params.n_ctx = sequences * (-(-length // 256) * 256)
        params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = threads
        self._context = lib.llama_init_from_model(model, params)
        if not self._context:
            sys.exit("llama.cpp made no context; is there enough memory?")
        self._sequences = sequences
        self._batch = lib.llama_batch_init(max(params.n_batch, sequences), 0, 1)
        self._sampler = lib.llama_sampler_init_greedy()
        self._lengths = [0] * sequences

    def clear(self) -> None:
        lib.llama_memory_clear(lib.llama_get_memory(self._context), False)
        self._lengths = [0] * self._sequences

    def step(self, tokens: Sequence[Sequence[int]]) -> list[list[int]]:
        """Appends tokens[i] to sequence i; the token that follows each, as a list of one."""
        batch, count, last = self._batch, 0, []
        for sequence, new in enumerate(tokens):
            for token in new:
                batch.token[count] = token
                batch.pos[count] = self._lengths[sequence]
                batch.n_seq_id[count] = 1
                batch.seq_id[count][0] = sequence
                batch.logits[count] = False
                self._lengths[sequence] += 1
                count += 1
            batch.logits[count - 1] = True
            last.append(count - 1)
        batch.n_tokens = count
        status = lib.llama_decode(self._context, batch)
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status}")
        return [[lib.llama_sampler_sample(self._sampler, self._context, i)] for i in last]


class Probe:
    """The workloads on two contexts, one for a single sequence and one for many."""

    def __init__(self, model: Any, threads: int, prompt_tokens: int, tokens: int) -> None:
        longest = max(prompt_tokens + 1, DECODE_PROMPT + tokens)
        self._one = Context(model, 1, longest, threads)
        self._many = Context(model, SEQUENCES, DECODE_PROMPT + tokens, threads)
        self._vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
        self._prompt_tokens, self._tokens = prompt_tokens, tokens
        self._random = random.Random(0)

    def warm_up(self) -> None:
        self.prefill()
        self._run(self._many, SEQUENCES, DECODE_PROMPT, 2)

    def prefill(self) -> float:
        return self._prompt_tokens / self._first(self._prompt_tokens)

    def first_token(self) -> float:
        return self._first(FIRST_PROMPT)

    def decode(self) -> float:
        return self._run(self._one, 1, DECODE_PROMPT, self._tokens)

    def batch_decode(self) -> float:
        return self._run(self._many, SEQUENCES, FIRST_PROMPT, self._tokens)

    def _first(self, length: int) -> float:
        self._one.clear()
        prompt = self._prompt(length)
        start = time.perf_counter()
        self._one.step([prompt])
        return time.perf_counter() - start

    def _run(self, context: Context, sequences: int, length: int, tokens: int) -> float:
        context.clear()
        following = context.step([self._prompt(length) for _ in range(sequences)])
        start = time.perf_counter()
        for _ in range(tokens - 1):
            following = context.step(following)
        return sequences * (tokens - 1) / (time.perf_counter() - start)

    def _prompt(self, length: int) -> list[int]:
        return self._random.choices(range(self._vocab), k=length)


@lib.llama_log_callback
def _silent(level: int, text: bytes, data: Any) -> None:
    pass


def load_model(path: str) -> Any:
    """The model of a GGUF file, on the CPU; ends the process where it cannot be loaded."""
    lib.llama_log_set(_silent, ctypes.c_void_p(0))
    lib.llama_backend_init()
    params = lib.llama_model_default_params()
    params.n_gpu_layers = 0
    model = lib.llama_model_load_from_file(path.encode(), params)
    if not model:
        sys.exit(f"llama.cpp cannot load {path}")
    return model


def main() -> None:
    output = own_output()
    path = sys.argv[1]
    threads, prompt_tokens, tokens = map(int, sys.argv[2:])
    model = load_model(path)
    probe = Probe(model, threads, prompt_tokens, tokens)
    probe.warm_up()
    system = lib.llama_print_system_info().decode()
    facts = {"version": lib.__version__, "kernels": " ".join(system.split())}
    measures: dict[str, Callable[[], float]] = {
        "decode": probe.decode,
        "prefill": probe.prefill,
        "batch_decode": probe.batch_decode,
        "first_token": probe.first_token,
    }
    serve(output, sys.stdin, measures, facts)


if __name__ == "__main__":
    main()
