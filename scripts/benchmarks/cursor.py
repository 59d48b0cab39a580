"""What it brings to lay a prompt out for somebody who types, to heal the word at the cursor, and to
end a filling where it says again what follows.

    scripts/bench cursor MODEL HOLES [--layout usual|served] [--ends model|served]
                         [--language java] [--at-end]

HOLES is made by `scripts/make-packs infilling [--begun | --lines]`. By default all holes are filled
as `subllm eval --task infilling` does, their programs run in the sandbox; with `--layout usual` all
that is before the cursor stands before the first marker, as others ask, and no word is healed; with
`--ends model` holes of several lines are filled until the model ends. --at-end leaves out what
follows the cursor, and tells how many lines are completed to the letter.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from subllm.cli.app import main as subllm
from subllm.engine.request import SamplingParams
from subllm.measuring.evaluation.engines import Engines
from subllm.measuring.evaluation.generate import Ask, generate
from subllm.measuring.evaluation.prompts import Prompter
from subllm.measuring.evaluation.stops import OneLine
from subllm.models.store.store import Store
from subllm.models.store.tokenizers import open_tokenizer
from subllm.models.text import fim
from subllm.models.text.hole_end import Hole

TOKENS = 48
TOGETHER = 8


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/bench cursor",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model")
    parser.add_argument("holes", type=Path)
    parser.add_argument("--layout", choices=("usual", "served"), default="served")
    parser.add_argument("--ends", choices=("model", "served"), default="served")
    parser.add_argument("--at-end", action="store_true")
    parser.add_argument("--language", default="python", help="of the holes")
    arguments = parser.parse_args()
    if arguments.at_end:
        at_end(arguments.model, arguments.holes, heals=arguments.layout == "served")
        return
    if arguments.layout == "usual":
        fim.at_cursor = lambda *a, **k: (fim.encode(*a, **k), ())
    if arguments.ends == "model":
        Hole.between = lambda *_: None  # type: ignore[method-assign]
    if (arguments.layout, arguments.ends) != ("served", "served"):  # records differ by it
        Prompter.facts = {"layout": arguments.layout, "ends": arguments.ends}  # type: ignore[assignment]
    holes = str(arguments.holes)
    sys.argv = ["subllm", "eval", arguments.model, "--task", "infilling", "--data", holes]
    sys.argv += ["--language", arguments.language]
    subllm()


def at_end(model: str, holes: Path, *, heals: bool) -> None:
    store = Store(Path(os.environ["SUBLLM_HOME"]))
    tokenizer = open_tokenizer(store, store.model(model))
    params, rest, asks = SamplingParams(max_tokens=TOKENS), {}, []
    for row in map(json.loads, holes.read_text().splitlines()):
        name, prompt = row["task_id"], row["prompt"]
        plain = tuple(tokenizer.encode(prompt)), ()
        ids, begun = fim.encode_begun(tokenizer, prompt) if heals else plain
        asks.append(Ask(name, ids, params, OneLine(""), begun=begun))
        rest[name] = row["canonical_solution"].strip()
    engine = Engines(store)(model, TOGETHER, max(ask.tokens for ask in asks))
    exact = sum(
        answer.text.strip() == rest[answer.id] for answer in generate(engine, asks, TOGETHER)
    )
    print(f"{model}: {exact} of {len(asks)} lines to the letter, nothing after the cursor")


if __name__ == "__main__":
    main()
