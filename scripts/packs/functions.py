"""Functions after their comments, written by a dense base: for recovery to learn from.

  scripts/make-packs functions --language java             let the base write, then check and
                                                           write the pack
  scripts/make-packs functions assemble --language java    only check what was written and write
                                                           the pack

The base goes on after a name and parameters, or the first words of a comment, that are drawn
(`making.textmaking.beginnings`), as `subllm data make --formats function` does. Every answer is
kept in --answers; what is there is not written again. Two cores write 400 tokens a second. Kept is
what ended by itself, parses as one function with a body, is nearly no other, and shares no ten
words with a benchmark (0.5B models recite those: one to four in a hundred of their functions did).
The same base, engine and number of tokens give the same pack.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from assemble import read_benchmarks, write
from base import find_base
from overlap import PACKS

from subllm.engine.computing import Computing
from subllm.engine.limits import EngineLimits
from subllm.engine.loader import load_engine
from subllm.errors import SubllmError
from subllm.making.calibration.packs import WRITTEN
from subllm.making.textmaking.beginnings import languages
from subllm.making.textmaking.judge import Judge
from subllm.making.textmaking.known import KnownText
from subllm.making.textmaking.maker import Maker, Wanted
from subllm.making.textmaking.raw_answers import SUFFIX, RawAnswers
from subllm.making.textmaking.tasks import roots
from subllm.making.textmaking.writer import Asker, Draws
from subllm.making.textmaking.writer import write as let_write
from subllm.measuring.evaluation.builtin import builtin_texts
from subllm.models.store.store import Store
from subllm.models.store.tokenizers import open_tokenizer
from subllm.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]
FORMS = ("function",)
ROOM = 512  # tokens of a function with its beginning


def generate(options: argparse.Namespace) -> None:
    """Let the base write until there are `--tokens` tokens of answers, or `--minutes` are over."""
    store = Store(load_settings().home)
    manifest = store.model(options.model)
    asker = Asker(open_tokenizer(store, manifest), manifest.prompt, Draws())
    by = f"{manifest.base.name}, {manifest.values} weights, {manifest.head} head"
    # What is fit is told when the pack is made; nothing here depends on it.
    engine = load_engine(
        store,
        options.model,
        computing=Computing(threads=options.threads),
        limits=EngineLimits(
            max_batch=options.slots,
            queue_limit=2 * options.slots,
            kv_tokens=ROOM * options.slots,
        ),
    )
    began, told = time.monotonic(), 0
    try:
        with RawAnswers(answers_of(options)) as answers:
            wanted = Wanted(FORMS, roots(options.language, FORMS))
            maker = Maker(answers, Judge(KnownText()), wanted)

            def enough() -> bool:
                late = time.monotonic() - began > options.minutes * 60
                return late or maker.written >= options.tokens

            for _ in let_write(engine, asker, maker, by, together=options.slots, enough=enough):
                if maker.written - told > 10_000:
                    told = maker.written
                    print(f"{told} tokens", file=sys.stderr)
    finally:
        engine.close()


def answers_of(options: argparse.Namespace) -> Path:
    return options.answers / f"{options.language}{SUFFIX}"


def assemble(options: argparse.Namespace) -> None:
    """The pack of what was written."""
    names, known = read_benchmarks(options.benchmarks)
    known.add(builtin_texts())
    with RawAnswers(answers_of(options)) as answers:
        judge = Judge(known)
        ordered = sorted(answers, key=lambda answer: answer.task.id)
    samples, tokens, rejected = [], 0, {}
    for answer in ordered:
        found = judge.judge(answer)
        if isinstance(found, str):
            rejected[found] = rejected.get(found, 0) + 1
            continue
        tokens += found.tokens
        samples.append(
            {"id": found.id, "split": "train", "answer": "file", "tag": found.tag,
             "code": found.text}
        )  # fmt: skip
    provenance = {
        **find_base(Store(load_settings().home), options.base),
        "kind": "functions that the base wrote after a drawn beginning",
        "writers": sorted({answer.by for answer in ordered}),
        "generated": len(ordered),
        "accepted": len(samples),
        "written tokens": tokens,
        "rejected": dict(sorted(rejected.items())),
        "benchmark overlap": {"compared": names or "not checked"},
        "command": f"scripts/make-packs functions assemble --language {options.language}",
    }
    first = {"pack": f"written:{options.language}", "version": 1, "provenance": provenance}
    path = options.out / f"{options.language}{PACKS[1:]}"
    size = write(path, first, samples)
    print(
        f"{options.language}: {len(samples)} of {len(ordered)} functions, {tokens} tokens, "
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
    add("--language", choices=languages(), default="python")
    add("--base", default="qwen2.5-coder:0.5b", help="what --model is made of, in the store")
    add("--model", default="qwen2.5-coder:0.5b-dense", help="what writes; 'subllm add' makes it")
    add("--answers", type=Path, default=ROOT / "scripts/packs/answers", help="a directory")
    add("--out", type=Path, default=WRITTEN)
    add("--benchmarks", type=Path, help="HumanEval-form .jsonl.gz files to stay clear of")
    add("--tokens", type=int, default=100_000)
    add("--minutes", type=float, default=600.0, help="stop writing after so long")
    add("--slots", type=int, default=48, help="functions that are written together")
    add("--threads", type=int)
    return parser.parse_args(argv)
