"""Make the calibration packs that ship with subllm (src/subllm/making/calibration/data).

  scripts/make-packs            ask the base model, then check its answers and write packs
  scripts/make-packs generate   only ask; what is answered already is not asked again
  scripts/make-packs assemble   only check the answers there are and write packs
  scripts/make-packs code       write the code packs that recovery learns from (released.py)
  scripts/make-packs functions  let the base write functions to learn from (functions.py)
  scripts/make-packs grams      hash the --benchmarks for users, who have none of their text
  scripts/make-packs overlap    look for text of benchmarks in the packs (overlap.py)
  scripts/make-packs infilling  make infillings of HumanEval, to be evaluated (infilling.py)

The base answers on subllm's own engine, dense and in int8. That takes most of an hour on
two cores; stop it whenever you like and run it again.
Checking wants node, g++, gcc, javac and bash; assembling fails where one is missing. The
same answers and tools give the same packs, byte for byte.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import assemble
import functions
import infilling
import overlap
import released
from answers import Sampling, read_answers
from base import find_base, read_run, record_run
from checkers import CHECKERS
from tasks import COUNTS, LANGUAGES

from subllm.errors import SubllmError
from subllm.making.textmaking.known import write_grams
from subllm.models.store.store import Store
from subllm.models.text.tokenizer import Tokenizer
from subllm.progress import NullProgress
from subllm.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]
TOKENIZER_FILE = "tokenizer.bundle"


def main(argv: list[str]) -> int | None:
    if argv[:1] == ["functions"]:
        return functions.main(argv[1:])
    if argv[:1] == ["overlap"]:
        return overlap.main(argv[1:])
    if argv[:1] == ["infilling"]:
        return infilling.main(argv[1:])
    options = parse(argv)
    try:
        if options.command in ("all", "generate"):
            ask(options)
        if options.command in ("all", "assemble"):
            write_packs(options)
        if options.command == "code":
            released.write_code_packs(
                ROOT / ".build/packs/code",
                options.out / "code",
                assemble.read_benchmarks(options.benchmarks),
            )
        if options.command == "grams":
            names, known = assemble.read_benchmarks(options.benchmarks)
            print(f"{len(known.hashes)} hashes of {names}, {write_grams(known, names)} bytes")
    except (SubllmError, LookupError) as error:
        raise SystemExit(f"make-packs: {error}") from error
    return None


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/make-packs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "command",
        nargs="?",
        choices=["all", "generate", "assemble", "code", "grams"],
        default="all",
    )
    add("--base", default="qwen2.5-coder:0.5b", help="a base in the store; pull it first")
    add("--answers", type=Path, default=ROOT / ".build/packs/answers", help="raw answers")
    add("--out", type=Path, default=ROOT / "src/subllm/making/calibration/data", help="the packs")
    add("--benchmarks", type=Path, help="HumanEval-form .jsonl.gz files to stay clear of")
    add("--tasks", nargs="+", default=[], metavar="LANGUAGE=N", help=f"default {COUNTS}")
    add("--slots", type=int, default=64, help="answers that decode together")
    add("--minutes", type=float, default=600.0, help="stop asking after so long")
    add("--temperature", type=float, default=0.8)
    add("--top-p", type=float, default=0.95)
    add("--max-new", type=int, default=576, help="an answer longer than this is rejected")
    add("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    options.counts = dict(COUNTS)
    for given in options.tasks:
        language, _, number = given.partition("=")
        if language not in COUNTS or not number.isdigit():
            parser.error(f"--tasks takes {'|'.join(COUNTS)}=NUMBER, not {given!r}")
        options.counts[language] = int(number)
    return options


def ask(options: argparse.Namespace) -> None:
    from ask import Run, generate  # loads an engine, assembling needs none

    from subllm.making.extraction.dense import DenseForm, add_dense

    store = Store(load_settings().home)
    base = find_base(store, options.base)
    sampling = Sampling(options.temperature, options.top_p, options.max_new, options.seed)
    record_run(options.answers, base, sampling, options.counts)
    dense = add_dense(store, options.base, NullProgress(), DenseForm(values="int8"))
    bundle = store.blobs.read_bytes(dense.manifest.blobs.tokenizer)
    (options.answers / TOKENIZER_FILE).write_bytes(bundle)
    run = Run(options.answers, options.counts, options.slots, options.minutes, sampling)
    generate(run, store, dense.name)


def write_packs(options: argparse.Namespace) -> None:
    run = read_run(options.answers)
    tokenizer = Tokenizer.from_bundle((options.answers / TOKENIZER_FILE).read_bytes())
    answers = read_answers(options.answers)
    names, benchmark = assemble.read_benchmarks(options.benchmarks)
    verdicts = assemble.Verdicts(options.answers / "verdicts.json", CHECKERS)
    for language in LANGUAGES:
        try:
            pack = assemble.build(
                language,
                answers,
                verdicts,
                benchmark,
                lambda text: len(tokenizer.encode_plain(text)),
                asked=run["tasks"][language],
                seed=run["seed"],
            )
        finally:
            verdicts.save()
        first = assemble.header(pack, run, names)
        size = assemble.write(options.out / f"{language}.jsonl.xz", first, pack.samples)
        print(
            f"{language}: {len(pack.samples)} of {pack.generated} accepted, "
            f"{pack.tokens['train']} train and {pack.tokens['heldout']} held-out tokens, "
            f"{size} bytes; rejected: {first['provenance']['rejected']}"
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
