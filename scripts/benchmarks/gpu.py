"""What the kernels of GPUs cost: compiled for any card, measured where there is one.

    scripts/bench gpu [--archs 80 86 89 90 120] [--only TEXT...] [--no-compile]
                      [--shapes 0.5b 7b] [--tokens 1 4 16] [--json FILE]

Without a GPU every kernel is compiled for the architectures and a table tells, for each, the
registers of a thread, kilobytes of shared memory and bytes of stack (registers that had to be
spilled); for the first architecture also the instructions of the loop over the columns, which
for 1 to 8 tokens takes 32 weights of one row. With a GPU products are measured too: each row
multiplies enough copies of a matrix to leave the caches behind; beside them torch's bfloat16
product and bitsandbytes' NF4. Medians of CUDA events.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # every launch says what it wants itself
os.environ.pop("TRITON_INTERPRET", None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--archs", nargs="+", type=int, default=[80, 86, 89, 90, 120])
    parser.add_argument("--only", nargs="+", help="specimens whose name has this in it")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--shapes", nargs="+", default=["0.5b", "7b"], choices=["0.5b", "7b"])
    parser.add_argument("--tokens", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if importlib.util.find_spec("triton") is None:
        sys.exit("Triton is not installed; run .venv/bin/pip install 'triton>=3.6'")
    found: dict[str, Any] = {}
    if not options.no_compile:
        found["compiled"] = compile_all(options.archs, options.only)
    import torch

    if torch.cuda.is_available():
        from benchmarks.launches.timed import measure

        found["measured"] = measure(options.shapes, options.tokens)
    else:
        print("no GPU here: nothing was measured")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def compile_all(architectures: list[int], only: list[str] | None) -> dict[str, Any]:
    from benchmarks.launches.compiled import compiled, launches
    from benchmarks.launches.specimens import specimens

    titles = "".join(f"{f'sm_{number}':>10}" for number in architectures)
    print(f"{'registers/shared kB/stack':<25}{'loop':>5}{titles}")
    found: dict[str, Any] = {}
    for name, call in specimens().items():
        if only and not any(text in name for text in only):
            continue
        launch = launches(call)[0]
        costs = [compiled(launch, number) for number in architectures]
        cells = (f"{c.registers}/{c.shared / 1024:.0f}/{c.stack}" for c in costs)
        line = f"{name:<25}{costs[0].instructions:>5}" + "".join(f"{cell:>10}" for cell in cells)
        print(line, flush=True)
        found[name] = dict(zip(architectures, (vars(c) for c in costs), strict=True))
    return found


if __name__ == "__main__":
    main()
