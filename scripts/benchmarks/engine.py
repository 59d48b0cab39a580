"""Speed of the engine, with llama.cpp on the same base beside it in the same run.

    scripts/bench engine [--base NAME] [--rounds 5] [--quick] [--peer no] [--steps no]
                         [--json FILE]

Every engine is a process of its own that stays loaded. A round asks each for each quantity,
one after the other and every round starting with another engine; medians are given. Models
are pruned by magnitude: which weights are kept does not change the speed. Then follows V(n),
what a step over n tokens of one sequence costs in units of one; what drafts bring is told by
`scripts/bench speculation`. Nothing else should run meanwhile. The first run pulls the base, makes
the models and compiles llama-cpp-python, which together takes most of an hour.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import frame
from benchmarks.engines.models import dense, pruned_by_magnitude, run_cli
from benchmarks.engines.peer import (
    PACKAGE,
    base_gguf,
    gguf_bytes_per_token,
    gguf_types,
    peer_python,
    quantized,
)
from benchmarks.engines.worker import MEASURES, Worker, WorkerError

from subllm.models.store.store import Store

ENGINES = Path(__file__).with_name("engines")
REFERENCE = "llama.cpp Q4_K_M"


@dataclass
class Row:
    """An engine to be measured; `failed` says why it was not. steps: seconds over 1, 2, ...
    tokens of one sequence."""

    title: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    samples: dict[str, list[float]] = field(default_factory=lambda: {m: [] for m in MEASURES})
    steps: list[float] | None = None
    failed: str = ""


def main() -> None:
    arguments = parse(sys.argv[1:])
    store, threads = frame.store(), arguments.threads
    machine = frame.Machine(threads)
    run_cli("pull", arguments.base)
    rows = our_rows(arguments, store, threads)
    if arguments.peer == "yes":
        rows += peer_rows(arguments, store, threads)
    measure(rows, arguments.rounds, machine, arguments.steps == "yes")
    record = {
        "machine": machine.document(),
        "base": arguments.base,
        "prompt_tokens": arguments.prompt_tokens,
        "tokens": arguments.tokens,
        "rounds": arguments.rounds,
        "peer": PACKAGE if arguments.peer == "yes" else None,
        "engines": [document(row, machine.bandwidth) for row in rows],
    }
    print(f"{machine}\n{arguments.base}, medians of {arguments.rounds}; in brackets how many times "
          f"as fast as {REFERENCE}\n")  # fmt: skip
    show(record["engines"])
    frame.write(record, arguments.json)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = frame.parser(
        "engine", __doc__, base=True, rounds=5, threads=True, peer=True, json=True
    )
    parser.add_argument("--quick", action="store_true", help="one short round: does it work?")
    parser.add_argument("--steps", choices=["yes", "no"], default="yes", help="V(n)")
    arguments = parser.parse_args(argv)
    arguments.prompt_tokens, arguments.tokens = 1024, 128
    if arguments.quick:
        arguments.rounds, arguments.prompt_tokens, arguments.tokens = 1, 128, 16
    return arguments


def our_rows(arguments: argparse.Namespace, store: Store, threads: int) -> list[Row]:
    base = arguments.base
    sparse4, sparse8 = (pruned_by_magnitude(base, values) for values in ("int4", "int8"))
    dense4, dense8 = (dense(store, base, values) for values in ("int4", "int8"))

    def row(title: str, name: str, backend: str = "native", **settings: str) -> Row:
        sizes = [str(threads), str(arguments.prompt_tokens), str(arguments.tokens)]
        command = [sys.executable, str(ENGINES / "ours.py"), name, backend, *sizes]
        return Row(title, command, {f"SUBLLM_{key.upper()}": to for key, to in settings.items()})

    return [
        row("8:16 int4", sparse4),
        row("8:16 int8", sparse8),
        row("dense int4", dense4),
        row("dense int8", dense8),
        row("dense int4, whole head", dense4, screened_head="false"),
        row("8:16 int4, torch bf16", sparse4, "torch"),
        row("8:16 int4, AVX2", sparse4, isa="avx2"),
        row("dense int4, AVX2", dense4, isa="avx2"),
    ]


def peer_rows(arguments: argparse.Namespace, store: Store, threads: int) -> list[Row]:
    source = base_gguf(store, arguments.base, arguments.gguf)
    python = peer_python(arguments.peer_python)
    files = {"Q4_K_M": source}
    files |= {kind: quantized(python, source, kind) for kind in ("Q4_0", "Q3_K_S")}
    rows = []
    for kind, path in files.items():
        sizes = [str(threads), str(arguments.prompt_tokens), str(arguments.tokens)]
        command = [python, str(ENGINES / "llama_cpp_worker.py"), str(path), *sizes]
        facts = {"bytes_per_token": gguf_bytes_per_token(path), "types": gguf_types(path)}
        rows.append(Row(f"llama.cpp {kind}", command, facts=facts))
    return rows


def measure(rows: list[Row], rounds: int, machine: frame.Machine, steps: bool) -> None:
    """Fills samples, facts and steps; an engine that fails is left out of the rest. Bandwidth is
    read before, between and after the rounds."""
    machine.read()
    with ExitStack() as stack:
        workers: list[tuple[Row, Worker]] = []
        for row in rows:
            try:
                worker = Worker(row.title, row.command, row.environment)
            except WorkerError as error:
                row.failed = str(error)
                print(f"{row.title}: {error}", file=sys.stderr)
                continue
            stack.callback(worker.close)
            row.facts |= worker.facts
            workers.append((row, worker))
        for number, turn in frame.rounds(workers, rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
            for what in MEASURES:
                for row, worker in turn:
                    if row.failed:
                        continue
                    try:
                        row.samples[what].append(worker.measure(what))
                    except WorkerError as error:
                        row.failed = f"{what}: {error}"
                        print(f"{row.title}: {row.failed}", file=sys.stderr)
            machine.read()
        for row, worker in workers:
            if steps and not row.failed and row.facts.get("backend") == "native":
                try:
                    row.steps = worker.measure("steps")
                except WorkerError as error:
                    print(f"{row.title}: no V(n), {error}", file=sys.stderr)


def document(row: Row, bandwidth: float) -> dict[str, Any]:
    medians = frame.medians(row.samples)
    decode, read = medians["decode"], row.facts.get("bytes_per_token")
    per_second = decode * read if decode and read else None
    return {
        "engine": row.title,
        "failed": row.failed or None,
        "facts": row.facts,
        "median": medians,
        "samples": row.samples,
        "step_seconds": row.steps,
        "step_costs": [seconds / row.steps[0] for seconds in row.steps] if row.steps else None,
        "bytes_per_second": per_second,
        "read_bandwidth_share": per_second / bandwidth if per_second else None,
    }


def show(engines: list[dict[str, Any]]) -> None:
    reference: dict[str, Any] = next((e["median"] for e in engines if e["engine"] == REFERENCE), {})
    titles = ["", "decode tok/s", "prefill tok/s", "8 seq. tok/s", "first, ms"]
    rows: list[list[str | None]] = []
    for engine in engines:
        first, base = engine["median"]["first_token"], reference.get("first_token")
        faster = f" ({base / first:.2f})" if first and base else ""
        read, per_second = engine["facts"].get("bytes_per_token"), engine["bytes_per_second"]
        share = engine["read_bandwidth_share"]
        rows.append(
            [
                engine["engine"],
                *(
                    cell(engine["median"][what], reference.get(what))
                    for what in ("decode", "prefill", "batch_decode")
                ),
                f"{first * 1e3:.1f}{faster}" if first else None,
                f"{read / 1e6:.1f}" if read else None,
                f"{per_second / 1e9:.1f}" if per_second else None,
                f"{share:.0%}" if share else None,
            ]
        )
    print(frame.table([*titles, "MB/tok", "GB/s", "of read"], rows))
    stepped = [engine for engine in engines if engine["step_costs"]]
    if stepped:
        numbers = [str(n) for n in range(1, 1 + len(stepped[0]["step_costs"]))]
        costs = [[e["engine"], *(f"{v:.2f}" for v in e["step_costs"])] for e in stepped]
        print("\n" + frame.table(["V(n), n =", *numbers], costs))
    notes = [f"{e['engine']}: not measured, {e['failed']}" for e in engines if e["failed"]]
    notes += [f"{e['engine']}: {e['facts']['types']}" for e in engines if "types" in e["facts"]]
    for note in notes:
        print(note)


def cell(value: float | None, reference: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" + (f" ({value / reference:.2f})" if reference else "")


if __name__ == "__main__":
    main()
