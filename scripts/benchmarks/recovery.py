"""Speed and memory of recovery: a few steps of training a base pruned to N:M, answers cached.

Takes a minute or two for the 0.5b on two cores. Masks are by magnitude, which is quick; speed
does not depend on what is kept. Prints tokens/s by the clock and by CPU time, what share of
this machine's own matrix products that is, and the peak memory of the process.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from benchmarks import frame

from subllm.kernels.sparsity.mask import select
from subllm.kernels.sparsity.pattern import Pattern
from subllm.making.calibration.load import TextOrigin, load_heldout_texts, load_texts
from subllm.making.calibration.render import Renderer
from subllm.making.calibration.sampler import Amount
from subllm.making.extraction.estimate import peak_memory_bytes
from subllm.making.extraction.prepare import open_base
from subllm.making.recovery.again import Kept
from subllm.making.recovery.budget import Budget
from subllm.making.recovery.compute import product_rate
from subllm.making.recovery.distil import Fit, Recovery
from subllm.making.recovery.recipe import Recipe
from subllm.making.recovery.rows import pack_rows
from subllm.making.recovery.task import Task
from subllm.models.weights.reader import WeightReader
from subllm.progress import NullProgress

HELDOUT_ROWS = 4


class Magnitudes(Mapping):
    """Masks of all block matrices, made when asked for."""

    def __init__(self, reader: WeightReader, pattern: Pattern) -> None:
        spec = reader.spec
        self._reader, self._pattern = reader, pattern
        self._names = [
            f"{spec.block_prefix(layer)}{linear.name}.weight"
            for layer in range(spec.num_layers)
            for linear in spec.linears
        ]

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        threads = torch.get_num_threads()
        return select(np.abs(self._reader.read(name)), self._pattern, threads=threads)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Clock(NullProgress):
    """How long the teacher took."""

    def __init__(self) -> None:
        self.teacher = 0.0
        self._since = 0.0

    def start(self, key: str, title: str, total: float | None, unit: str) -> None:
        if key == "teacher":
            self._since = time.process_time()

    def finish(self, key: str) -> None:
        if key == "teacher":
            self.teacher += time.process_time() - self._since


def main() -> None:
    arguments = parse(sys.argv[1:])
    torch.set_num_threads(arguments.threads)
    machine = frame.Machine(arguments.threads)
    device = torch.device(arguments.device)
    store = frame.store()
    digest, manifest, reader, tokenizer = open_base(store, arguments.base)
    recipe = Recipe(sequences=arguments.sequences)
    origin, renderer = TextOrigin("python"), Renderer(tokenizer, manifest.prompt)
    wanted = Amount((arguments.steps + 1) * recipe.tokens, recipe.length)
    read = load_texts("", origin, renderer, wanted, seed=0)
    judged = Amount((HELDOUT_ROWS + 1) * recipe.length, recipe.length)
    held = load_heldout_texts(origin, renderer, judged)
    end = renderer.end
    text, heldout = (pack_rows(part.documents, recipe.length, end=end) for part in (read, held))
    task = Task(
        reader, digest, Magnitudes(reader, Pattern.parse(arguments.pattern)), reader.read,
        text, heldout, recipe,
    )  # fmt: skip
    clock, marks = Clock(), []
    with tempfile.TemporaryDirectory(dir=arguments.scratch or None) as scratch:
        kept = None if arguments.kept == "auto" else Kept[arguments.kept.upper()]
        recovery = Recovery(task, Path(scratch), device=device, fit=Fit(kept))
        recovery.run(
            Budget(tokens=arguments.steps * recipe.tokens), clock,
            on_step=lambda report: marks.append((time.monotonic(), time.process_time())),
        )  # fmt: skip
    rate = product_rate(reader.spec, recovery.compute, device)
    flops = flops_of(reader, recovery.kept)
    count = (len(marks) - 1) * recipe.tokens
    clocked, cpu = (last - first for first, last in zip(marks[0], marks[-1], strict=True))
    record = {
        "machine": machine.document(),
        "compute": recovery.compute,
        "kept": {each.name.lower(): recovery.kept.count(each) for each in Kept},
        "tokens_per_second": count / clocked, "tokens_per_cpu_second": count / cpu,
        "teacher_tokens_per_cpu_second": (
            (len(marks) * recipe.tokens + HELDOUT_ROWS * recipe.length) / clock.teacher
        ),
        "gflop_per_token": flops / 1e9, "product_gflops": rate / 1e9,
        "share_of_products": count * flops / clocked / rate,
        "peak_memory_bytes": peak_memory_bytes(),
    }  # fmt: skip
    show(arguments, machine, record)
    frame.write(record, arguments.json)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = frame.parser("recovery", __doc__, base=True, threads=True, json=True)
    parser.add_argument("--pattern", default="8:16")
    parser.add_argument("--steps", type=int, default=4, help="at least 2; the first is warm-up")
    parser.add_argument("--sequences", type=int, default=Recipe().sequences)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--kept", choices=["auto", *(each.name.lower() for each in Kept)], default="auto",
        help="of every block for its backward pass",
    )  # fmt: skip
    parser.add_argument("--scratch", default="", help="where the state lies meanwhile")
    return parser.parse_args(argv)


def flops_of(reader: WeightReader, kept: Sequence[Kept]) -> float:
    """Products of one token, a multiply-add as two: blocks forward (in part again in backward,
    where they are not kept), their gradients by inputs and by weights; the head forward and
    back."""
    spec = reader.spec
    wide = sum(
        linear.in_features * linear.out_features
        for linear in spec.linears
        if linear.out_features > linear.in_features
    )
    again = {Kept.PRODUCTS: 0, Kept.NARROW: wide, Kept.INPUT: spec.block_params()}
    blocks = sum(3 * spec.block_params() + again[each] for each in kept)
    return 2.0 * (blocks + 2 * spec.vocab_size * spec.hidden_size)


def show(arguments: argparse.Namespace, machine: frame.Machine, record: dict) -> None:
    print(f"{machine}; {record['compute']} products {record['product_gflops']:.0f} GFLOP/s")
    kept = ", ".join(f"{name} of {count}" for name, count in record["kept"].items() if count)
    print(
        f"{arguments.base}, {arguments.pattern}, {arguments.sequences} x {Recipe().length} tokens "
        f"a step, {record['gflop_per_token']:.2f} GFLOP a token (kept of blocks: {kept})"
    )
    print(
        f"training {record['tokens_per_second']:.0f} tokens/s "
        f"({record['tokens_per_cpu_second']:.0f} a CPU second), "
        f"{record['share_of_products']:.0%} of products' rate; teacher "
        f"{record['teacher_tokens_per_cpu_second']:.0f} tokens a CPU second; "
        f"peak memory {record['peak_memory_bytes'] / 1e9:.2f} GB"
    )


if __name__ == "__main__":
    main()
