"""What is launched compiles for cards that are not here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[5]


def test_compiles_without_a_gpu(tmp_path: Path) -> None:
    """The oldest and the newest architecture, a product and what chooses a token."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("runs with the kernels: TRITON_INTERPRET=1")
    found = tmp_path / "costs.json"
    subprocess.run(
        [
            *(sys.executable, ROOT / "scripts/benchmarks", "gpu", "--archs", "80", "120"),
            *("--only", "8:16 int4, 1 token", "greedy", "--json", found),
        ],
        check=True,
        env={**os.environ, "TRITON_CACHE_DIR": str(tmp_path / "cache")},
    )
    costs = json.loads(found.read_text())["compiled"]
    assert set(costs) == {"8:16 int4, 1 token", "greedy"}
    for by_architecture in costs.values():
        assert set(by_architecture) == {"80", "120"}
        for cost in by_architecture.values():
            assert 0 < cost["registers"] <= 255 and cost["stack"] == 0
            assert cost["instructions"] > 16
