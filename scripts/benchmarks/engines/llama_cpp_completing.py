"""Worker of llama.cpp that writes real completions:

    llama_cpp_completing.py GGUF THREADS LONGEST TOGETHER

LONGEST: tokens of a request, prompt included; TOGETHER: requests at once, at most. Runs in
the environment of llama-cpp-python, with subllm's sources on PYTHONPATH for the rules that end
a text.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import llama_cpp as lib
from completing import completions
from llama_cpp_engine import LlamaEngine
from llama_cpp_worker import load_model
from worker import own_output, serve


def main() -> None:
    output = own_output()
    path = sys.argv[1]
    threads, longest, together = map(int, sys.argv[2:])
    engine = LlamaEngine(load_model(path), threads, longest, together)

    def complete(
        asks: list[dict[str, Any]], together: int = 1, drafts: str = ""
    ) -> Iterator[dict[str, Any]]:
        """drafts: "lookup N" for prompt lookup of at most N tokens, "" for plain decoding."""
        engine.draft_by_lookup(int(drafts.removeprefix("lookup ")) if drafts else 0)
        before = engine.rounds, engine.drafted, engine.accepted
        yield from completions(engine, asks, together)
        if drafts:
            after = engine.rounds, engine.drafted, engine.accepted
            names = ("lookup rounds", "lookup drafted", "lookup accepted")
            differences = (b - a for a, b in zip(before, after, strict=True))
            yield {"drafts": dict(zip(names, differences, strict=True))}

    facts = {"version": lib.__version__, "kernels": kernels()}
    serve(output, sys.stdin, {"complete": complete}, facts)


def kernels() -> str:
    return " ".join(lib.llama_print_system_info().decode().split())


if __name__ == "__main__":
    main()
