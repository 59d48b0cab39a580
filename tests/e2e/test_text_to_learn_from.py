"""Text that the real dense base writes, about code of this repository too."""

from __future__ import annotations

import ast
import json
from collections import Counter
from pathlib import Path

import pytest

from .conftest import BASE, ROOT, Machine, Run

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(1500)]


def test_text_is_made_and_gone_on_with(machine: Machine, tour: list[Run], tmp_path: Path) -> None:
    out = tmp_path / "text.jsonl"
    make = ["data", "make", "python", "--out", str(out), "--together", "16", "--json"]
    make += ["--formats", "function,fim", "--seeds", str(ROOT / "src" / "subllm" / "text")]
    first = machine.ok(*make, "--tokens", "600").document
    assert first["by"].startswith(f"{BASE}-dense, int4")
    assert 600 <= sum(first["tokens"].values()) < 2000 and set(first["texts"]) == {
        "function",
        "fim",
    }
    more = machine.ok(*make, "--tokens", str(sum(first["tokens"].values()) + 1)).document
    assert more["added"] > 0 and sum(more["texts"].values()) > sum(first["texts"].values())
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert Counter("fim" if "middle" in row else "function" for row in rows) == more["texts"]
    assert any(row["id"].startswith("own-") for row in rows)
    assert any(row["id"].startswith("python-") for row in rows)
    for row in rows:
        if "text" in row:
            ast.parse(row["text"])
