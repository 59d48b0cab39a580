"""Runs one benchmark by its name, or lists them all: the first line of each one's docstring."""

from __future__ import annotations

import ast
import runpy
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PARTS = {"__main__", "frame"}
"""Modules here that measure nothing themselves."""


def names() -> list[str]:
    return sorted({path.stem for path in HERE.glob("*.py")} - PARTS)


def listing() -> str:
    """A line for each benchmark: its name and what it measures."""
    lines = []
    for name in names():
        source = (HERE / f"{name}.py").read_text(encoding="utf-8")
        told = " ".join((ast.get_docstring(ast.parse(source)) or "").partition("\n\n")[0].split())
        lines.append(f"  {name:<12} {told}")
    return "\n".join(lines)


def main() -> None:
    sys.path[0] = str(HERE.parent)  # modules here have names that others have too
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in names():
        print(f"scripts/bench NAME [--help | what it takes]\n\n{listing()}", file=sys.stderr)
        sys.exit(2)
    del sys.argv[1]
    runpy.run_module(f"benchmarks.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
