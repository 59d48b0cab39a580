"""What of this checkout decides speed and texts."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[3] / "src" / "subllm"
PARTS = ("native", "runtime", "sparsity", "kernels", "text")
KINDS = (".py", ".cpp", ".h", ".txt")


@cache
def engine_version() -> str:
    """Digest of the sources of the engine, 12 hex digits: two checkouts that have the same
    write the same texts in the same time."""
    return version_of(SOURCES)


def version_of(sources: Path) -> str:
    """The same of any tree."""
    digest = hashlib.sha256()
    for part in PARTS:
        for path in sorted((sources / part).rglob("*")):
            if path.suffix in KINDS and path.is_file():
                digest.update(f"{path.relative_to(sources)}\0{path.stat().st_size}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
