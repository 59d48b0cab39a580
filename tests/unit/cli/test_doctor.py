"""`subllm doctor`: findings, and a verdict that follows from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from subllm.cli.doctor import TOKEN_BYTES
from subllm.kernels.native import core
from subllm.kernels.sparsity import mapping
from subllm.kernels.sparsity.mapping import SYSTEM
from subllm.models.store.store import Store

from .conftest import Live
from .samples import BASE, Ran

Command = Callable[..., Ran]
PAGES = ["pages"] if SYSTEM.exists() else []
NAMES = [
    "processor", "kernels", "memory", *PAGES, "reading", "GPU", "store", "network", "server",
]  # fmt: skip


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBLLM_OFFLINE", "1")
    monkeypatch.setenv("SUBLLM_THREADS", "1")


def test_a_line_each_and_a_verdict(store: Store, subllm: Command) -> None:
    ran = subllm("doctor")
    assert (ran.status, ran.err) == (0, "")
    *lines, empty, verdict = ran.out.splitlines()
    assert [line.split()[1] for line in lines] == NAMES
    assert empty == ""
    assert verdict.startswith("Ready. Expect of dense int4 models: 0.5B about ")


def test_json(live: Live, subllm: Command) -> None:
    document = subllm("doctor", "--json").json
    found = {finding["name"]: finding for finding in document["findings"]}
    assert list(found) == NAMES
    assert found["kernels"]["isas"] == list(core().isas())
    speed = found["reading"]["bytes_per_second"]
    assert 1e8 < speed < 1e12
    expected = found["reading"]["expected"]
    ratio = TOKEN_BYTES["1.5B"] / TOKEN_BYTES["0.5B"]
    assert expected["0.5B"] == pytest.approx(ratio * expected["1.5B"], abs=0.05 * (1 + ratio))
    assert found["memory"]["available_bytes"] <= found["memory"]["total_bytes"]
    assert found["store"]["names"] == 4
    assert found["server"]["servers"] == {live.server.url: True}


def test_what_is_damaged_is_the_verdict(store: Store, subllm: Command) -> None:
    model = store.model(f"{BASE}-java")
    store.blobs.path(model.blobs.own).unlink()
    ran = subllm("doctor")
    assert ran.status == 4
    assert f"!!  store      {BASE}-java: damaged" in ran.out
    assert ran.out.endswith("To be mended first: store.\n")
    assert ran.err.startswith(f"error: {BASE}-java: damaged")


def test_kernels_that_are_not_here(
    store: Store, subllm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUBLLM_ISA", "quantum")
    ran = subllm("doctor")
    assert ran.status == 7
    assert "SUBLLM_ISA is quantum" in ran.out


def test_an_empty_store_is_no_fault(tmp_path: Path, subllm: Command) -> None:
    ran = subllm("doctor")
    assert ran.status == 0
    assert "'subllm run python' fetches and makes a model" in ran.out
    assert not (tmp_path / "subllm-home" / "blobs").exists()


@pytest.mark.skipif(not PAGES, reason="this system has no switch for large pages")
def test_large_pages_that_are_off(
    store: Store, subllm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapping, "large_page", lambda: 0)
    ran = subllm("doctor")
    assert ran.status == 0
    assert "--  pages      large ones are off, " in ran.out
    assert f"echo madvise > {SYSTEM}/enabled" in ran.out
