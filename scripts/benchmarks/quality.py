"""What the native engine's arithmetic costs a model that is in the store.

    scripts/bench quality MODEL... [--tokens 4096] [--prompts 50] [--length 32]
                          [--engines native torch] [--seed 0] [--json FILE]

The judge is torch in float32 on the same packed weights. Perplexity, agreement of the most
likely token (over all held-out tokens, and over those where the judge's best is ahead by more
than 0.25) and greedy texts: how many equal each other's to the end, and by how much the
judge preferred its token where they part.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks import frame

from subllm.engine.computing import Computing
from subllm.engine.engine import LocalEngine
from subllm.engine.limits import EngineLimits
from subllm.engine.loader import load_engine
from subllm.engine.request import Request, SamplingParams, TokenLogprob
from subllm.making.calibration.load import TextOrigin, load_heldout
from subllm.making.calibration.render import Renderer
from subllm.models.store.store import Store
from subllm.models.store.tokenizers import open_tokenizer

WINDOW = 512
PROMPT = 64
TOGETHER = 10  # texts that the judge writes at once; the others write one by one, as users have it
CLEAR = 0.25  # a lead, in logits, that rounding should not take away
ENGINES = {
    "native": {"backend": "native"},
    "native, int8 KV": {"backend": "native", "kv_type": "int8"},
    "torch": {"backend": "torch"},
}


@dataclass(frozen=True)
class Lead:
    """What an engine finds most likely, and how far ahead of the next, in logits."""

    token: int
    margin: float


def main() -> None:
    arguments = parse(sys.argv[1:])
    store = frame.store()
    records = []
    for name in arguments.models:
        record = judge_model(store, name, arguments)
        records.append(record)
        show(record)
    frame.write(records, arguments.json)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = frame.parser("quality", __doc__, json=True)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--language", default="", help="of the held-out text; the model's own")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--length", type=int, default=32, help="of greedy texts, in tokens")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=["native", "torch"])
    return parser.parse_args(argv)


def judge_model(store: Store, name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    manifest = store.model(name)
    language = arguments.language or manifest.language
    language = "python" if language == "dense" else language
    tokenizer = open_tokenizer(store, manifest)
    sequences = -(-max(arguments.tokens, arguments.prompts * PROMPT) // (WINDOW - 1))
    rows = load_heldout(
        TextOrigin(language),
        Renderer(tokenizer, manifest.prompt),
        sequences=sequences,
        seq_len=WINDOW,
    )
    windows = [tuple(map(int, row)) for row in rows]
    stream = [token for window in windows for token in window]
    prompts = [
        tuple(stream[at : at + PROMPT])
        for at in range(0, len(stream) - PROMPT, max(PROMPT, len(stream) // arguments.prompts))
    ][: arguments.prompts]
    wanted = windows[: -(-arguments.tokens // (WINDOW - 1))]
    with engine(store, name, backend="torch", dtype="float32") as judge:
        truth = [scores(judge, window) for window in wanted]
        texts = greedy(judge, prompts, arguments.length, TOGETHER)
        record: dict[str, Any] = {
            "model": name,
            "values": manifest.values,
            "head": manifest.head,
            "language": language,
            "tokens": sum(map(len, truth)),
            "prompts": len(prompts),
            "length": arguments.length,
            "perplexity": perplexity(truth),
            "engines": {},
        }
        greedy_texts = {"float32": texts}
        for title in arguments.engines:
            options: dict[str, Any] = ENGINES[title]
            with engine(store, name, **options) as other:
                found = [scores(other, window) for window in wanted]
                greedy_texts[title] = greedy(other, prompts, arguments.length)
            record["engines"][title] = compare(truth, found)
        record["greedy"] = [
            compare_texts(judge, prompts, (one, greedy_texts[one]), (two, greedy_texts[two]))
            for one in greedy_texts
            for two in greedy_texts
            if list(greedy_texts).index(one) < list(greedy_texts).index(two)
        ]
    return record


@contextmanager
def engine(store: Store, name: str, **options: Any) -> Iterator[LocalEngine]:
    print(f"{name}: {' '.join(map(str, options.values()))}", file=sys.stderr)
    loaded = load_engine(
        store,
        name,
        computing=Computing(device="cpu", **options),
        limits=EngineLimits(max_batch=TOGETHER, kv_tokens=TOGETHER * WINDOW),
        context_length=WINDOW + 64,
    )
    try:
        yield loaded
    finally:
        loaded.close()


def scores(judge: LocalEngine, window: tuple[int, ...]) -> list[TokenLogprob]:
    return [entry for entry in judge.score(window, top=2) if entry is not None]


def lead(entry: TokenLogprob) -> Lead:
    (best, first), (_, second) = entry.top
    return Lead(best, first - second)


def perplexity(entries: list[list[TokenLogprob]]) -> float:
    return math.exp(-statistics.fmean(entry.logprob for row in entries for entry in row))


def compare(truth: list[list[TokenLogprob]], found: list[list[TokenLogprob]]) -> dict[str, Any]:
    pairs = [
        (lead(true), lead(other))
        for one, two in zip(truth, found, strict=True)
        for true, other in zip(one, two, strict=True)
    ]
    clear = [pair for pair in pairs if pair[0].margin > CLEAR]
    return {
        "perplexity": perplexity(found),
        "cost": perplexity(found) / perplexity(truth) - 1,
        "agreement": statistics.fmean(true.token == other.token for true, other in pairs),
        "clear": len(clear),
        "clear_agreement": statistics.fmean(true.token == other.token for true, other in clear),
    }


def greedy(
    judge: LocalEngine, prompts: list[tuple[int, ...]], length: int, together: int = 1
) -> list[tuple[int, ...]]:
    """Tokens of every prompt's continuation."""
    made: dict[str, tuple[int, ...]] = {}
    for first in range(0, len(prompts), together):
        for number, prompt in enumerate(prompts[first : first + together], first):
            params = SamplingParams(max_tokens=length, ignore_eos=True)
            judge.add(Request(str(number), prompt, params))
        while judge.has_work():
            for event in judge.step():
                if event.error is not None:
                    raise event.error
                made[event.request_id] = made.get(event.request_id, ()) + event.tokens
    return [made[str(number)] for number in range(len(prompts))]


def compare_texts(
    judge: LocalEngine,
    prompts: list[tuple[int, ...]],
    one: tuple[str, list[tuple[int, ...]]],
    two: tuple[str, list[tuple[int, ...]]],
) -> dict[str, Any]:
    """How many texts are equal, and the judge's lead where two part: small means that
    rounding decided."""
    margins = []
    for prompt, first, second in zip(prompts, one[1], two[1], strict=True):
        if first == second:
            continue
        at = next(i for i, pair in enumerate(zip(first, second, strict=True)) if pair[0] != pair[1])
        shared = prompt + first[:at]
        margins.append(lead(scores(judge, (*shared, first[at]))[-1]).margin)
    return {
        "between": [one[0], two[0]],
        "equal": len(prompts) - len(margins),
        "margins": sorted(margins),
    }


def show(record: dict[str, Any]) -> None:
    print(
        f"{record['model']}: values {record['values']}, head {record['head']}; "
        f"{record['tokens']} held-out tokens of {record['language']}"
    )
    rows: list[list[str | None]] = [
        ["torch float32", f"{record['perplexity']:.4f}", None, None, None]
    ]
    for title, row in record["engines"].items():
        shares = (f"{row[what]:.2%}" for what in ("agreement", "clear_agreement"))
        rows.append([title, f"{row['perplexity']:.4f}", f"{row['cost']:+.2%}", *shares])
    print(frame.table(["", "perplexity", "cost", "top-1 agrees", "lead > 0.25"], rows))
    for row in record["greedy"]:
        one, two = row["between"]
        line = f"greedy, {record['length']} tokens, {one} and {two}: {row['equal']} of "
        line += f"{record['prompts']} equal"
        if row["margins"]:
            parted = ", ".join(f"{margin:.2f}" for margin in row["margins"])
            line += f"; the judge's lead where they part: {parted}"
        print(line)


if __name__ == "__main__":
    main()
