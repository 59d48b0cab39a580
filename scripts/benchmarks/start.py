"""From starting `subllm complete` to its first character, without a server.

    scripts/bench start [MODEL] [--repeat 10]

The first run is not counted: it brings files into memory.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

PROMPT = "def is_prime(n: int) -> bool:"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/bench start",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", nargs="?", default="qwen2.5-coder:0.5b-python")
    parser.add_argument("--repeat", type=int, default=10)
    arguments = parser.parse_args()
    seconds = [first_character(arguments.model) for _ in range(arguments.repeat + 1)][1:]
    print(
        f"{arguments.model}: first character after {statistics.median(seconds):.2f} s "
        f"({min(seconds):.2f} to {max(seconds):.2f}, {len(seconds)} runs)"
    )


def first_character(model: str) -> float:
    program = str(Path(sys.executable).with_name("subllm"))
    command = [program, "complete", PROMPT, "--model", model, "--max-tokens", "24"]
    start = time.monotonic()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdout is not None
        got = process.stdout.read(1)
        seconds = time.monotonic() - start
        _, errors = process.communicate()
    if not got or process.returncode != 0:
        sys.exit(f"'{' '.join(command)}' failed: {errors.decode().strip()}")
    return seconds


if __name__ == "__main__":
    main()
