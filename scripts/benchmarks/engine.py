"""Speed of the engine, with llama.cpp on the same base beside it in the same run.

    scripts/bench engine [--base NAME] [--repeat 5] [--quick] [--peer no] [--steps no]
                         [--speculation no] [--json FILE]

Every engine is a process of its own that stays loaded. A round asks each for each quantity,
one after the other and every round starting with another engine; medians are given. Models
are pruned by magnitude: which weights are kept does not change the speed. Then follows V(n),
what a step over n tokens of one sequence costs in units of one, and what speculation brings
(scripts/bench speculation). Nothing else should run meanwhile. The first run pulls the base,
makes the models and compiles llama-cpp-python, which together takes most of an hour.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.drafting.measure import Compared
from benchmarks.drafting.measure import document as drafting_document
from benchmarks.drafting.measure import table as drafting_table
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
from benchmarks.speculation import run as run_speculation

from subllm.engine.bandwidth import read_bandwidth
from subllm.errors import SubllmError
from subllm.machine import cpu_name, usable_cores
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

    def median(self, measure: str) -> float | None:
        return statistics.median(self.samples[measure]) if self.samples[measure] else None


def main() -> None:
    arguments = parse(sys.argv[1:])
    store = Store(Path(os.environ["SUBLLM_HOME"]))
    threads = arguments.threads or usable_cores()
    load = os.getloadavg()[0]  # of others: what follows makes its own
    run_cli("pull", arguments.base)
    rows = our_rows(arguments, store, threads)
    if arguments.peer == "yes":
        rows += peer_rows(arguments, store, threads)
    if load > 0.3:
        print(f"warning: the machine is busy (load {load:.1f}); the figures will not be worth "
              "much", file=sys.stderr)  # fmt: skip
    readings = measure(rows, arguments.repeat, threads, arguments.steps == "yes")
    bandwidth = statistics.median(readings)
    drafted = speculation(arguments, store, threads) if arguments.speculation == "yes" else []
    record = {
        "machine": {
            "cpu": cpu_name(),
            "cores": usable_cores(),
            "threads": threads,
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "load_before": load,
            "read_bandwidth": bandwidth,
            "read_bandwidth_samples": readings,
        },
        "base": arguments.base,
        "prompt_tokens": arguments.prompt_tokens,
        "tokens": arguments.tokens,
        "repeat": arguments.repeat,
        "peer": PACKAGE if arguments.peer == "yes" else None,
        "engines": [document(row, bandwidth) for row in rows],
        "speculation": [drafting_document(row) for row in drafted],
    }
    show(record)
    if drafted:
        print("\nspeculation against own plain decoding, tokens per second")
        print(drafting_table(drafted))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(record, indent=2) + "\n")


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench engine",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--base", default="qwen2.5-coder:0.5b")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="of every engine; all cores")
    parser.add_argument("--quick", action="store_true", help="one short round: does it work?")
    parser.add_argument("--peer", choices=["yes", "no"], default="yes")
    parser.add_argument("--steps", choices=["yes", "no"], default="yes", help="V(n)")
    parser.add_argument("--speculation", choices=["yes", "no"], default="yes")
    parser.add_argument("--peer-python", default="", help="that has llama-cpp-python already")
    parser.add_argument("--gguf", default="", help="Q4_K_M file, if the base is no GGUF")
    parser.add_argument("--json", default="", metavar="FILE")
    arguments = parser.parse_args(argv)
    arguments.prompt_tokens, arguments.tokens = 1024, 128
    if arguments.quick:
        arguments.repeat, arguments.prompt_tokens, arguments.tokens = 1, 128, 16
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


def measure(rows: list[Row], repeat: int, threads: int, steps: bool) -> list[float]:
    """Fills samples, facts and steps; an engine that fails is left out of the rest. Returns the
    read bandwidth before, between and after the rounds: on a shared host it is no constant."""
    readings = [read_bandwidth(threads)]
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
        for number in range(repeat):
            print(f"round {number + 1} of {repeat}", file=sys.stderr)
            first = number % len(workers) if workers else 0
            for what in MEASURES:
                for row, worker in workers[first:] + workers[:first]:
                    if row.failed:
                        continue
                    try:
                        row.samples[what].append(worker.measure(what))
                    except WorkerError as error:
                        row.failed = f"{what}: {error}"
                        print(f"{row.title}: {row.failed}", file=sys.stderr)
            readings.append(read_bandwidth(threads))
        for row, worker in workers:
            if steps and not row.failed and row.facts.get("backend") == "native":
                try:
                    row.steps = worker.measure("steps")
                except WorkerError as error:
                    print(f"{row.title}: no V(n), {error}", file=sys.stderr)
    return readings


def speculation(arguments: argparse.Namespace, store: Store, threads: int) -> list[Compared]:
    """On the dense models of the base."""
    rounds = 1 if arguments.quick else arguments.repeat
    values = ["int8", "int4"]
    try:
        return run_speculation(store, arguments.base, values, rounds=rounds, threads=threads)
    except SubllmError as error:
        print(f"speculation: not measured, {error}", file=sys.stderr)
        return []


def document(row: Row, bandwidth: float) -> dict[str, Any]:
    decode, read = row.median("decode"), row.facts.get("bytes_per_token")
    per_second = decode * read if decode and read else None
    return {
        "engine": row.title,
        "failed": row.failed or None,
        "facts": row.facts,
        "median": {what: row.median(what) for what in MEASURES},
        "samples": row.samples,
        "step_seconds": row.steps,
        "step_costs": [seconds / row.steps[0] for seconds in row.steps] if row.steps else None,
        "bytes_per_second": per_second,
        "read_bandwidth_share": per_second / bandwidth if per_second else None,
    }


def show(record: dict[str, Any]) -> None:
    machine, engines = record["machine"], record["engines"]
    reference: dict[str, Any] = next((e["median"] for e in engines if e["engine"] == REFERENCE), {})
    print(
        f"{machine['cpu']}, {machine['threads']} threads, reads "
        f"{machine['read_bandwidth'] / 1e9:.1f} GB/s\n{record['base']}, medians of "
        f"{record['repeat']}; in brackets how many times as fast as {REFERENCE}\n"
    )
    print(
        f"{'':22}{'decode tok/s':>15}{'prefill tok/s':>16}{'8 seq. tok/s':>15}"
        f"{'first, ms':>15}{'MB/tok':>8}{'GB/s':>6}{'of read':>8}"
    )
    for engine in engines:
        line = f"{engine['engine']:22}"
        for what, width in (("decode", 15), ("prefill", 16), ("batch_decode", 15)):
            line += cell(engine["median"][what], reference.get(what)).rjust(width)
        first, base = engine["median"]["first_token"], reference.get("first_token")
        faster = f" ({base / first:.2f})" if first and base else ""
        line += (f"{first * 1e3:.1f}{faster}" if first else "-").rjust(15)
        read, per_second = engine["facts"].get("bytes_per_token"), engine["bytes_per_second"]
        line += f"{read / 1e6:8.1f}" if read else f"{'-':>8}"
        line += f"{per_second / 1e9:6.1f}" if per_second else f"{'-':>6}"
        share = engine["read_bandwidth_share"]
        line += f"{share:8.0%}" if share else f"{'-':>8}"
        print(line)
    stepped = [engine for engine in engines if engine["step_costs"]]
    if stepped:
        numbers = range(1, 1 + len(stepped[0]["step_costs"]))
        print(f"\n{'V(n), n =':22}" + "".join(f"{n:6}" for n in numbers))
    for engine in stepped:
        print(f"{engine['engine']:22}" + "".join(f"{v:6.2f}" for v in engine["step_costs"]))
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
