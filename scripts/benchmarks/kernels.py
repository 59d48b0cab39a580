"""Speed of the matrix products: weights per second and share of the memory bandwidth.

    scripts/bench kernels [--shapes 0.5b] [--values int4 int8] [--patterns 8:16 dense]
                          [--isas avx512] [--tokens 1 8 512] [--threads 0] [--warm] [--json FILE]
    scripts/bench kernels --steps [--shapes 0.5b 1.5b] [--values int4] [--isas avx512 avx2]

Each row multiplies enough copies of a matrix to leave the caches behind, so one token is
read from memory as in decoding. Weights count as if dense. The median of the runs is
given, and the best for machines that are not quiet. With --warm it is the instructions that
are measured: CPU time of one thread, on a single copy that stays in the caches if it fits.

With --steps it is V(n): what all products of a model's block cost for n tokens at once, in units
of what they cost for one. All n are measured in turns.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from subllm.engine.bandwidth import read_bandwidth
from subllm.kernels.products import ops
from subllm.kernels.sparsity.layout import aligned_empty
from subllm.kernels.sparsity.mask import select
from subllm.kernels.sparsity.packing import PackedTensor, pack
from subllm.kernels.sparsity.pattern import Pattern

SHAPES = {
    "0.5b": [(896, 896), (128, 896), (4864, 896), (896, 4864)],
    "0.5b-head": [(151936, 896)],
    "1.5b": [(1536, 1536), (256, 1536), (8960, 1536), (1536, 8960)],
}
BLOCKS = {"0.5b": (2, 2, 2, 1), "1.5b": (2, 2, 2, 1)}
"""How often a block has each of the SHAPES."""

STEPS = range(1, 17)
COLD_BYTES = 128 << 20
SECONDS = 1.0


def timed(call: Callable[[], Any], clock: Callable[[], float]) -> list[float]:
    """Durations of repeated calls, for about SECONDS."""
    call()
    durations: list[float] = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(durations) < 5:
        start = clock()
        call()
        durations.append(clock() - start)
    return durations


def packed(rows: int, cols: int, pattern: str, values: str) -> PackedTensor:
    rng = np.random.default_rng(rows * cols)
    parts = min(rows, 8192)  # a large head repeats its first rows
    weights = rng.standard_normal((parts, cols), np.float32)
    weights = np.resize(weights, (rows, cols))
    parsed = Pattern.parse(pattern)
    mask = None if parsed.kind == "dense" else select(np.abs(weights), parsed)
    return pack(weights, mask, parsed, values)


def copy(tensor: PackedTensor) -> PackedTensor:
    """The same planes elsewhere, aligned as in a file."""

    def plane(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        flat = aligned_empty(array.size, array.dtype.type)
        flat[:] = array.reshape(-1)
        return flat.reshape(array.shape)

    planes = {
        one.name: plane(value)
        for one in dataclasses.fields(tensor)
        if isinstance(value := getattr(tensor, one.name), np.ndarray)
    }
    return dataclasses.replace(tensor, **planes)


def measure(
    pool: ops.Pool, tensor: PackedTensor, tokens: int, isa: str, bandwidth: float, warm: bool
) -> dict[str, Any]:
    """One row of the table."""
    rows, cols = tensor.shape
    copies = 1 if tokens > 16 or warm else max(1, -(-COLD_BYTES // tensor.nbytes))
    matrices = [ops.Matrix(copy(tensor)) for _ in range(copies)]
    x = np.random.default_rng(0).standard_normal((tokens, cols), np.float32)
    outs = [np.empty((tokens, rows), np.float32)] * copies
    clock = time.thread_time if warm else time.perf_counter
    runs = timed(lambda: ops.multiply_all(pool, matrices, x, outs, isa=isa), clock)
    weights, middle = rows * cols * copies, statistics.median(runs)
    return {
        "rows": rows,
        "cols": cols,
        "pattern": tensor.pattern,
        "values": tensor.values,
        "isa": isa,
        "tokens": tokens,
        "threads": pool.threads,
        "weights_per_second": weights / middle,
        "best_weights_per_second": weights / min(runs),
        "flops": 2 * weights * tokens / middle,
        "bytes_per_second": tensor.nbytes * copies / middle,
        "read_bandwidth": bandwidth,
    }


def step_costs(
    pool: ops.Pool, shapes: str, pattern: str, values: str, isa: str, warm: bool
) -> dict[str, Any]:
    """V(n) of the block of a model, and how fast it reads for one token."""
    clock = time.thread_time if warm else time.perf_counter
    seconds = dict.fromkeys(STEPS, 0.0)
    nbytes = weights = 0
    for (rows, cols), count in zip(SHAPES[shapes], BLOCKS[shapes], strict=True):
        tensor = packed(rows, cols, pattern, values)
        copies = 1 if warm else max(1, -(-COLD_BYTES // tensor.nbytes))
        matrices = [ops.Matrix(copy(tensor)) for _ in range(copies)]
        x = np.random.default_rng(0).standard_normal((STEPS[-1], cols), np.float32)
        inputs = {n: np.ascontiguousarray(x[:n]) for n in STEPS}
        outs = {n: [np.empty((n, rows), np.float32)] * copies for n in STEPS}
        runs: dict[int, list[float]] = {n: [] for n in STEPS}
        end = time.perf_counter() + 2 * SECONDS
        while time.perf_counter() < end or len(runs[STEPS[-1]]) < 5:
            for n in STEPS:
                start = clock()
                ops.multiply_all(pool, matrices, inputs[n], outs[n], isa=isa)
                runs[n].append(clock() - start)
        for n in STEPS:
            seconds[n] += count * statistics.median(runs[n]) / copies
        nbytes += count * tensor.nbytes
        weights += count * rows * cols
    return {
        "shapes": shapes,
        "pattern": pattern,
        "values": values,
        "isa": isa,
        "threads": pool.threads,
        "costs": [seconds[n] / seconds[1] for n in STEPS],
        "seconds": [seconds[n] for n in STEPS],
        "weights_per_second": weights / seconds[1],
        "bytes_per_second": nbytes / seconds[1],
    }


def bench_steps(args: argparse.Namespace) -> list[dict[str, Any]]:
    pool = ops.Pool(1 if args.warm else args.threads)
    print(f"{'V(n), n =':>29} " + " ".join(f"{n:5}" for n in STEPS) + "   GB/s")
    records = []
    shapes = [name for name in args.shapes if name in BLOCKS]
    for name, pattern, values, isa in itertools.product(
        shapes, args.patterns, args.values, args.isas
    ):
        record = step_costs(pool, name, pattern, values, isa, args.warm)
        records.append(record)
        costs = " ".join(f"{cost:5.2f}" for cost in record["costs"])
        title = f"{name} {pattern:>6} {values:>5} {isa:>8}"
        print(f"{title:>29} {costs} {record['bytes_per_second'] / 1e9:6.1f}", flush=True)
    return records


HEADER = (
    f"{'shape':>12} {'pattern':>7} {'values':>6} {'isa':>7} {'tokens':>6} "
    f"{'Gw/s':>8} {'best':>8} {'GFLOP/s':>8} {'GB/s':>6} {'share':>6}"
)


def line(record: dict[str, Any]) -> str:
    return (
        f"{record['rows']:>6}x{record['cols']:<5} {record['pattern']:>7} {record['values']:>6} "
        f"{record['isa']:>7} {record['tokens']:>6} {record['weights_per_second'] / 1e9:8.1f} "
        f"{record['best_weights_per_second'] / 1e9:8.1f} {record['flops'] / 1e9:8.0f} "
        f"{record['bytes_per_second'] / 1e9:6.1f} "
        f"{record['bytes_per_second'] / record['read_bandwidth']:6.0%}"
    )


def bench(args: argparse.Namespace) -> list[dict[str, Any]]:
    pool = ops.Pool(1 if args.warm else args.threads)
    bandwidth = read_bandwidth(pool.threads)
    print(f"{pool.threads} threads, reads {bandwidth / 1e9:.1f} GB/s", file=sys.stderr)
    print(HEADER)
    records = []
    shapes = [shape for name in args.shapes for shape in SHAPES[name]]
    for (rows, cols), pattern, values in itertools.product(shapes, args.patterns, args.values):
        tensor = packed(rows, cols, pattern, values)
        for tokens, isa in itertools.product(args.tokens, args.isas):
            records.append(measure(pool, tensor, tokens, isa, bandwidth, args.warm))
            print(line(records[-1]), flush=True)
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--patterns", nargs="+", default=None)
    parser.add_argument("--values", nargs="+", default=None)
    parser.add_argument(
        "--isas", nargs="+", default=[os.environ.get("SUBLLM_ISA") or ops.isas()[0]]
    )
    parser.add_argument("--tokens", nargs="+", type=int, default=[1])
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--warm", action="store_true", help="CPU time of one thread, in cache")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--steps", action="store_true", help="V(n) for 1 to 16 tokens")
    args = parser.parse_args()
    few, many = ["dense", "8:16"], ["8:16", "2:4", "50%", "dense"]
    args.patterns = args.patterns or (few if args.steps else many)
    args.values = args.values or (["int4", "int8"] if args.steps else ["int4", "int8", "bf16"])
    records = bench_steps(args) if args.steps else bench(args)
    if args.json:
        args.json.write_text(json.dumps(records, indent=1))


if __name__ == "__main__":
    main()
