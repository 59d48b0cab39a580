"""Speed of the matrix products: weights per second and share of the memory bandwidth.

    scripts/bench kernels [--shapes 0.5b] [--values int4 int8] [--patterns 8:16 dense]
                          [--isas avx512] [--tokens 1 8 512] [--threads 2] [--warm] [--json FILE]

Each row multiplies enough copies of a matrix to leave the caches behind, so one token is
read from memory as in decoding. Weights count as if dense. The median of the runs is
given, and the best for machines that are not quiet. With --warm it is the instructions that
are measured: CPU time of one thread, on a single copy that stays in the caches if it fits.
What a whole step over n tokens costs in units of one is in `scripts/bench engine`.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from benchmarks import frame

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
    machine = frame.Machine(pool.threads)
    bandwidth = machine.read()
    print(machine, file=sys.stderr)
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
    parser = frame.parser("kernels", __doc__, threads=True, json=True)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--patterns", nargs="+", default=["8:16", "2:4", "50%", "dense"])
    parser.add_argument("--values", nargs="+", default=["int4", "int8", "bf16"])
    parser.add_argument(
        "--isas", nargs="+", default=[os.environ.get("SUBLLM_ISA") or ops.isas()[0]]
    )
    parser.add_argument("--tokens", nargs="+", type=int, default=[1])
    parser.add_argument("--warm", action="store_true", help="CPU time of one thread, in cache")
    args = parser.parse_args()
    frame.write(bench(args), args.json)


if __name__ == "__main__":
    main()
