"""What all benchmarks share: what they take, the machine, rounds, peers, tables, records."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from json import dumps
from pathlib import Path
from typing import Any, TypeVar

from subllm.engine.bandwidth import read_bandwidth
from subllm.machine import cpu_name, usable_cores
from subllm.models.store.store import Store

T = TypeVar("T")
BUSY = 0.3
"""A load from which on figures of speed are not worth much."""


def parser(
    name: str,
    doc: str | None,
    *,
    base: bool = False,
    rounds: int = 0,
    threads: bool = False,
    peer: bool = False,
    json: bool = False,
) -> argparse.ArgumentParser:
    """Of `scripts/bench NAME`, with the options that are asked for; `rounds` is the default."""
    made = argparse.ArgumentParser(
        prog=f"scripts/bench {name}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    if base:
        add("--base", type=full_name, default="0.5b", help="NAME, or 0.5b, 1.5b")
    if rounds:
        add("--rounds", type=at_least_one, default=rounds)
    if threads:
        add("--threads", type=at_least_one, default=usable_cores(), help="all cores")
    if peer:
        add("--peer", choices=["yes", "no"], default="yes")
        add_peer(made)
    if json:
        add("--json", type=Path, metavar="FILE", help="write what was measured")
    return made


def add_peer(given: argparse.ArgumentParser) -> None:
    """What llama.cpp is run with and on."""
    given.add_argument("--peer-python", default="", help="that has llama-cpp-python already")
    given.add_argument("--gguf", default="", help="Q4_K_M file, if the base is no GGUF")


def full_name(base: str) -> str:
    return base if ":" in base else f"qwen2.5-coder:{base}"


def at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"takes a number from 1 on, not {text}")
    return number


def store() -> Store:
    """The benchmarks' own, which scripts/bench names."""
    return Store(Path(os.environ["SUBLLM_HOME"]))


def write(record: Any, path: Path | None) -> None:
    """As JSON, where a path was given."""
    if path is not None:
        path.write_text(dumps(record, indent=1) + "\n")


class Machine:
    """This one, with its load before anything ran and its read bandwidth from time to time: on
    a shared host neither is a constant."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.load = os.getloadavg()[0]
        if self.load > BUSY:
            print(f"warning: the machine is busy (load {self.load:.1f}); the figures will not "
                  "be worth much", file=sys.stderr)  # fmt: skip
        self.readings: list[float] = []

    def read(self) -> float:
        """Measures the bandwidth once more; bytes/s, as is what follows."""
        self.readings.append(read_bandwidth(self.threads))
        return self.readings[-1]

    @property
    def bandwidth(self) -> float:
        return statistics.median(self.readings)

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "cpu": cpu_name(),
            "cores": usable_cores(),
            "threads": self.threads,
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "load_before": self.load,
        }
        if self.readings:
            found |= {"read_bandwidth": self.bandwidth, "read_bandwidth_samples": self.readings}
        return found

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        read = f", reads {self.bandwidth / 1e9:.1f} GB/s" if self.readings else ""
        return f"{cpu_name()}, {threads}{read}"


def rounds(things: Sequence[T], count: int) -> Iterator[tuple[int, list[T]]]:
    """The number of each round and all things, every round starting with another one: what a
    shared host does meanwhile falls on none alone."""
    for number in range(count):
        first = number % len(things) if things else 0
        yield number, [*things[first:], *things[:first]]


def medians(samples: Mapping[str, Sequence[float]]) -> dict[str, float | None]:
    """None where nothing was measured."""
    return {name: statistics.median(had) if had else None for name, had in samples.items()}


def table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns, the first to the left, figures to the right; None is a dash."""
    cells = [[*titles], *(["-" if one is None else str(one) for one in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for first, *rest in cells:
        right = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *right]).rstrip())
    return "\n".join(lines)
