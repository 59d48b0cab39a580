"""Functions after their docstrings, written by a dense base: for recovery to learn from.

  scripts/make-packs functions             let the base write, then check and write the pack
  scripts/make-packs functions assemble    only check what was written and write the pack

The base goes on after `def NAME(...):` and the quotes of a docstring, NAME and parameters drawn
from functions.yaml: it writes the docstring and the body. Every answer is kept in --answers; what
is there is not written again. 400 tokens a second on two cores. Kept is what ended by itself,
parses as one function with a body, is nearly no other, and shares no ten words with a benchmark
(0.5B models recite those: about one in a hundred of their functions did).
"""

from __future__ import annotations

import argparse
import ast
import itertools
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filters
import yaml
from answers import end_line
from assemble import read_benchmarks, write
from base import find_base
from overlap import PACKS
from privacy import private

from subllm.calibration.packs import WRITTEN
from subllm.errors import SubllmError
from subllm.settings import load_settings
from subllm.store.store import Store

ROOT = Path(__file__).resolve().parents[2]
WORDS = Path(__file__).with_name("functions.yaml")
STOPS = ("\ndef ", "\nclass ", "\nif __name__", "\nprint(", "\nassert", "\n#", "\n@", "\n```",
         "\nfrom ", "\nimport ")  # fmt: skip
MAX_TOKENS, ROOM = 256, 420  # of an answer; of it with its beginning
_TYPES = ("List", "Tuple", "Optional")
_DOCSTRING, _BARE = 0.7, 0.85  # up to here of a draw: with a docstring begun, a signature alone


@dataclass(frozen=True)
class Beginning:
    """What the base goes on after, as its `number`-th text."""

    number: int
    text: str

    @property
    def id(self) -> str:
        return f"function-{self.number:05d}"


def beginnings(language: str, seed: int = 7) -> Iterator[Beginning]:
    """All of a language, in an order that the seed decides."""
    words = yaml.safe_load(WORDS.read_text())[language]
    names = list(itertools.product(words["verbs"].split(), words["nouns"].split()))
    draw = random.Random(seed)
    draw.shuffle(names)
    signatures = list(words["signatures"].items())
    for number, (verb, noun) in enumerate(names):
        parameters, results = draw.choice(signatures)
        result = draw.choice(results)
        line = f"def {verb}_{noun}({parameters})" + (f" -> {result}" if result else "") + ":\n"
        used = [name for name in _TYPES if name in line]
        head = f"from typing import {', '.join(used)}\n\n\n" if used else ""
        kind = draw.random()
        if kind < _DOCSTRING:
            yield Beginning(number, f'{head}{line}    """' + draw.choice(["", "\n    ", " "]))
        elif kind < _BARE:
            yield Beginning(number, head + line)
        else:
            yield Beginning(number, f"def {verb}_{noun}(")


def generate(options: argparse.Namespace) -> None:
    """Let the base write until there are `--tokens` tokens of answers, or `--minutes` are over."""
    from subllm.runtime.loader import load_engine
    from subllm.runtime.request import Request, SamplingParams
    from subllm.store.tokenizers import open_tokenizer

    store = Store(load_settings().home)
    tokenizer = open_tokenizer(store, store.model(options.model))
    slots = options.slots
    engine = load_engine(
        store, options.model, max_batch=slots, queue_limit=2 * slots, kv_tokens=ROOM * slots
    )
    path = options.answers
    known = {answer["id"]: answer for answer in read(path)}
    tokens = sum(answer["tokens"] for answer in known.values())
    path.parent.mkdir(parents=True, exist_ok=True)
    end_line(path)
    waiting = (one for one in beginnings(options.language) if one.id not in known)
    running: dict[str, list[str]] = {}

    def ask() -> None:
        one = next(waiting, None)
        if one is None:
            return
        params = SamplingParams(
            temperature=0.8 if one.number % 4 else 0.3, top_p=0.95, top_k=64,
            max_tokens=MAX_TOKENS, seed=one.number, stop=STOPS,
        )  # fmt: skip
        engine.add(Request(one.id, tuple(tokenizer.encode_plain(one.text, bos=None)), params))
        running[one.id] = [one.text, ""]

    began, told = time.monotonic(), tokens
    try:
        with path.open("a") as file:
            for _ in range(slots):
                ask()
            while engine.has_work() and time.monotonic() - began < options.minutes * 60:
                for event in engine.step():
                    if event.error is not None:
                        raise event.error
                    one = running[event.request_id]
                    one[1] += event.text
                    if event.finish_reason is None:
                        continue
                    del running[event.request_id]
                    answer = {
                        "id": event.request_id, "ended": event.finish_reason == "stop",
                        "tokens": event.completion_tokens, "prompt": one[0], "text": one[1],
                    }  # fmt: skip
                    file.write(json.dumps(answer) + "\n")
                    tokens += event.completion_tokens
                    if tokens < options.tokens:
                        ask()
                if tokens - told > 10_000:
                    told = tokens
                    print(f"{tokens} tokens", file=sys.stderr)
    finally:
        engine.close()


def read(path: Path) -> list[dict[str, Any]]:
    """Answers in the order of their ids; a line that was cut short is left out."""
    if not path.exists():
        return []
    found = [json.loads(line) for line in path.read_text().split("\n")[:-1] if line.endswith("}")]
    return sorted(found, key=lambda answer: answer["id"])


def unfit(text: str, ended: bool, benchmark: filters.Benchmark, seen: filters.Seen) -> str | None:
    """Why a text is no function to learn from, if it is none."""
    if not ended:
        return "cut"
    try:
        found = [one for one in ast.parse(text).body if isinstance(one, ast.FunctionDef)]
    except (SyntaxError, ValueError):
        return "does not parse"
    if len(found) != 1 or len(found[0].body) < 1 + (ast.get_docstring(found[0]) is not None):
        return "no function"
    if re.search(r"\b(TODO|pass)\b", text):
        return "placeholder"
    for check in (filters.foreign_letters, private, benchmark.overlaps, seen.near_duplicate):
        if reason := check(text):
            return reason
    return None


def assemble(options: argparse.Namespace) -> None:
    """The pack of what was written."""
    names, benchmark = read_benchmarks(options.benchmarks)
    seen, rejected = filters.Seen(), Counter[str]()
    samples, tokens = [], 0
    answers = read(options.answers)
    for answer in answers:
        text = (answer["prompt"] + answer["text"]).rstrip() + "\n"
        if reason := unfit(text, answer["ended"], benchmark, seen):
            rejected[reason] += 1
            continue
        seen.add(text)
        tokens += answer["tokens"]
        samples.append(
            {"id": answer["id"], "split": "train", "answer": "file", "tag": options.language,
             "code": text}
        )  # fmt: skip
    base = find_base(Store(load_settings().home), options.base)
    provenance = {
        **base,
        "kind": "functions that the base wrote after a drawn beginning",
        "generated": len(answers),
        "accepted": len(samples),
        "written tokens": tokens,
        "rejected": dict(sorted(rejected.items())),
        "benchmark overlap": {"compared": names or "not checked"},
        "command": "scripts/make-packs functions assemble",
    }
    first = {"pack": f"written:{options.language}", "version": 1, "provenance": provenance}
    path = options.out / f"{options.language}{PACKS[1:]}"
    size = write(path, first, samples)
    print(
        f"{options.language}: {len(samples)} of {len(answers)} functions, {tokens} tokens, "
        f"{size} bytes; rejected: {provenance['rejected']}"
    )


def main(argv: list[str]) -> None:
    options = parse(argv)
    try:
        if options.command == "all":
            generate(options)
        assemble(options)
    except (SubllmError, LookupError) as error:
        raise SystemExit(f"make-packs: {error}") from error


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/make-packs functions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("command", nargs="?", choices=["all", "assemble"], default="all")
    add("--language", choices=sorted(yaml.safe_load(WORDS.read_text())), default="python")
    add("--base", default="qwen2.5-coder:0.5b", help="what --model is made of, in the store")
    add("--model", default="qwen2.5-coder:0.5b-dense", help="what writes; 'subllm add' makes it")
    add("--answers", type=Path, default=ROOT / ".build/packs/functions.jsonl")
    add("--out", type=Path, default=WRITTEN)
    add("--benchmarks", type=Path, help="HumanEval-form .jsonl.gz files to stay clear of")
    add("--tokens", type=int, default=500_000)
    add("--minutes", type=float, default=600.0, help="stop writing after so long")
    add("--slots", type=int, default=48, help="functions that are written together")
    return parser.parse_args(argv)
