"""What the screened head costs and keeps, of a model that is in the store.

    scripts/bench head MODEL [--sequences 8] [--positions 64] [--json FILE]

For held-out text in four languages and instructions with answers: how often the greedy token is
that of the whole head, and how many draws the screen decides, finds in its tail, or leaves to the
whole head. For some of those positions, what a draw at temperature 1 with no filter is off from
the whole head's distribution (total variation, and the mass of the tail). At last the CPU time
of the head in a step of one token, both ways in turn.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from benchmarks import frame

from subllm.engine.backend import Chunk, Draw
from subllm.engine.backends.native import NativeBackend
from subllm.engine.loader import PackedSource
from subllm.engine.request import SamplingParams
from subllm.kernels import native
from subllm.kernels.sparsity.layout import TILE_ROWS
from subllm.making.calibration.load import TextOrigin, load_heldout
from subllm.making.calibration.render import Renderer
from subllm.models.store.model_files import ModelFiles, open_model

TEXTS = ("python", "java", "cpp", "javascript", "general")
LENGTH = 512
ROUNDS = 60


def main() -> None:
    parser = frame.parser("head", __doc__, json=True)
    parser.add_argument("model")
    parser.add_argument("--sequences", type=int, default=8, help="of 512 tokens, each text")
    parser.add_argument("--positions", type=int, default=64, help="for distributions, of each")
    arguments = parser.parse_args(sys.argv[1:])
    store = frame.store()
    with open_model(store, arguments.model) as files:
        record = measure(files, arguments.sequences, arguments.positions)
    frame.write(record, arguments.json)


def measure(files: ModelFiles, sequences: int, positions: int) -> dict[str, Any]:
    source = PackedSource(files)
    screened, whole = NativeBackend(source), NativeBackend(source, screen=False)
    if not screened._decoder.verdicts:
        sys.exit("the head of this model has no screening plane")
    tokenizer, prompt = files.tokenizer(), files.manifest.prompt
    record: dict[str, Any] = {"texts": {}}
    equal = total = 0
    for text in TEXTS:
        rows = load_heldout(
            TextOrigin(text), Renderer(tokenizer, prompt), sequences=sequences, seq_len=LENGTH
        ).astype(np.int32)
        before = np.array(screened._decoder.verdicts)
        pairs = [(choices(screened, row), choices(whole, row)) for row in rows]
        count, same = rows.size, sum(int((a == b).sum()) for a, b in pairs)
        drawn, _, left = np.array(screened._decoder.verdicts) - before
        off = [deviation(source, whole, row, positions) for row in rows[:2]]
        figures = {
            "tokens": count,
            "greedy_equal": same / count,
            "whole": left / (drawn + left),
        } | {key: float(np.mean([one[key] for one in off])) for key in off[0]}
        record["texts"][text] = figures
        equal, total = equal + same, total + count
        print(
            f"{text:<11} greedy equal {same} of {count} ({100 * same / count:.3f} %), whole head "
            f"for {100 * figures['whole']:.2f} %; at temperature 1: tail {figures['tail']:.4f} of "
            f"the mass, taken for {figures['taken']:.4f}, total variation {figures['tv']:.5f}, "
            f"whole head for {100 * figures['whole_sampled']:.1f} %",
            flush=True,
        )
    print(f"all         greedy equal {equal} of {total} ({100 * equal / total:.3f} %)")
    record["greedy_equal"] = equal / total
    record["cpu_ms"] = cpu_times(source, rows[0])
    print(
        "CPU time of the head for one token: {screened:.3f} ms screened, {whole:.3f} ms whole, "
        "{ratio:.3f} of it (medians of {rounds} rounds in turn, 1 thread)".format(
            **record["cpu_ms"], rounds=ROUNDS
        )
    )
    return record


def choices(backend: NativeBackend, row: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Greedy tokens after every position."""
    draws = [Draw(SamplingParams(temperature=0.0), row[:1], 1, 0.0) for _ in row]
    kv = backend.kv_open()
    found = backend.step([Chunk(kv, 0, row, draws)])[0]
    backend.kv_close(kv)
    return np.array([choice.token for choice in found])  # type: ignore[union-attr]


def deviation(
    source: PackedSource, whole: NativeBackend, row: np.ndarray[Any, Any], positions: int
) -> dict[str, float]:
    """Means over positions of what `decoder/head.h` does at temperature 1: mass of the tail, what
    it is taken for, total variation (none where the whole head is read), and how often it is."""
    name = source.spec.head_name
    screen = source.screen(name)
    assert screen is not None
    decoder, core = whole._decoder, native.core()
    hidden = np.empty((len(row), screen.shape[1]), np.float32)
    kv = whole.kv_open()
    decoder.head_inputs(kv, 0, row, hidden)
    whole.kv_close(kv)
    kv = whole.kv_open()
    exact = whole.logits(kv, 0, row)
    whole.kv_close(kv)
    picked = np.random.default_rng(0).choice(len(row), min(positions, len(row)), replace=False)
    copies = np.empty((len(picked), screen.shape[0]), np.float32)
    handle = core.Screen(*screen.shape, screen.codes, screen.steps, screen.columns)
    core.screen(core.Pool(0), handle, np.ascontiguousarray(hidden[picked]), copies)
    found = [one_deviation(copy, exact[at]) for copy, at in zip(copies, picked, strict=True)]
    return {key: float(np.mean([one[key] for one in found])) for key in found[0]}


def one_deviation(copy: np.ndarray[Any, Any], logits: np.ndarray[Any, Any]) -> dict[str, float]:
    copy, logits = copy.astype(np.float64), logits.astype(np.float64)
    count = native.core().SCREEN_CANDIDATES
    best = np.argpartition(-copy, count)[:count]
    bound = copy[best].min()
    known = np.zeros(-(-len(copy) // TILE_ROWS), bool)
    known[best // TILE_ROWS] = True
    inside = np.repeat(known, TILE_ROWS)[: len(copy)]
    beside = inside & (copy < bound)
    slope, offset = np.polyfit(copy[beside], logits[beside], 1)
    variance = np.mean((logits[beside] - slope * copy[beside] - offset) ** 2)
    mass = np.exp(logits - logits.max())
    tail = mass[~inside].sum()
    taken = np.exp(slope * copy[~inside] + offset + variance / 2 - logits.max()).sum()
    true, seen = tail / mass.sum(), taken / (mass[inside].sum() + taken)
    left = seen > native.core().SCREEN_MOST_TAIL
    tv = 0.0 if left else abs(true - seen)
    return {"tail": true, "taken": seen, "tv": tv, "whole_sampled": float(left)}


def cpu_times(source: PackedSource, row: np.ndarray[Any, Any]) -> dict[str, float]:
    """Of a step with a draw less one without, in milliseconds."""
    ways = {
        "screened": NativeBackend(source, threads=1),
        "whole": NativeBackend(source, threads=1, screen=False),
    }
    slabs = {way: backend.kv_open() for way, backend in ways.items()}
    times: dict[str, list[float]] = {way: [] for way in ways}
    for at, turn in frame.rounds(list(ways.items()), ROUNDS):
        for way, backend in turn:
            for drawing in (False, True):
                draws: Sequence[Draw] = ()
                if drawing:
                    draws = [Draw(SamplingParams(temperature=0.0), row[:1], 1, 0.0)]
                chunk = Chunk(slabs[way], at, row[at : at + 1], draws)
                began = time.process_time()
                backend.step([chunk])
                spent = 1e3 * (time.process_time() - began)
                if drawing:
                    times[way][-1] = spent - times[way][-1]
                else:
                    times[way].append(spent)
    medians = {way: statistics.median(values) for way, values in times.items()}
    return medians | {"ratio": medians["screened"] / medians["whole"]}


if __name__ == "__main__":
    main()
