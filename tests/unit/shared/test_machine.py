"""Cores by affinity and by the quota of control groups."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from subllm import machine
from subllm.machine import (
    cpu_name,
    cpu_quota,
    free_memory,
    give_memory_back,
    usable_cores,
)


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    (tmp_path / "groups/a/b").mkdir(parents=True)
    return tmp_path / "groups"


def own(groups: Path, text: str = "1:cpu:/elsewhere\n0::/a/b\n") -> Path:
    path = groups.parent / "own"
    path.write_text(text)
    return path


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs CPU affinity")
def test_affinity_is_respected() -> None:
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
            "from subllm.machine import usable_cores; print(usable_cores())",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == "1\n"
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("leaf", "parent", "expected"),
    [
        ("max 100000", "max 100000", None),
        ("150000 100000", "max 100000", 1.5),
        ("400000 100000", "200000 100000", 2.0),  # the tightest of all levels holds
        ("max 100000", "50000 100000", 0.5),
        ("nonsense", "100000", None),
        ("100000 0", "max 100000", None),
        (None, None, None),
    ],
)
def test_the_tightest_quota_counts(
    groups: Path, leaf: str | None, parent: str | None, expected: float | None
) -> None:
    for path, text in ((groups / "a/b", leaf), (groups / "a", parent)):
        if text is not None:
            (path / "cpu.max").write_text(text + "\n")
    assert cpu_quota(own(groups), groups) == expected


def test_a_container_sees_itself_at_the_root(groups: Path) -> None:
    (groups / "cpu.max").write_text("300000 100000\n")
    assert cpu_quota(own(groups, "0::/\n"), groups) == 3.0


def test_no_version_2_groups_are_no_quota(groups: Path, tmp_path: Path) -> None:
    (groups / "cpu.max").write_text("300000 100000\n")
    assert cpu_quota(own(groups, "1:cpu:/a\n"), groups) is None
    assert cpu_quota(tmp_path / "absent", groups) is None


@pytest.mark.parametrize(("quota", "cores"), [(0.5, 1), (1.5, 2), (64.0, None), (None, None)])
def test_a_quota_lowers_the_cores(
    quota: float | None, cores: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(machine, "cpu_quota", lambda: quota)
    assert usable_cores() == (cores or 8)


def test_the_processor_has_a_name_that_a_person_knows() -> None:
    name = cpu_name()
    assert name and name == name.strip() and "\n" not in name


def test_free_memory_is_that_of_the_tightest_group(groups: Path) -> None:
    free = free_memory(own(groups), groups)
    assert free > 10**8
    (groups / "a/memory.max").write_text("1000000\n")
    (groups / "a/memory.current").write_text("900000\n")
    (groups / "a/memory.stat").write_text("anon 5\ninactive_file 50000\n")
    (groups / "a/b/memory.max").write_text("max\n")
    (groups / "a/b/memory.current").write_text("900000\n")
    assert free_memory(own(groups), groups) == 150_000
    (groups / "a/memory.current").write_text("2000000\n")
    assert free_memory(own(groups), groups) == 0


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_what_was_freed_goes_back() -> None:
    """Pieces that a later one keeps from being given back as they are freed."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    held = [bytes(50_000) for _ in range(1000)]
    last = held[-1]
    before = resident()
    held.clear()
    give_memory_back()
    assert resident() < before - 40_000_000
    assert len(last) == 50_000


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_of_what_a_thread_freed_nothing_stays() -> None:
    """30 MB in pieces, once the C library has seen a large block and is in no hurry any more."""
    program = """
import os, threading
from pathlib import Path
from subllm.machine import give_memory_back, one_heap

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def work():
    held = [b"x" * 50_000 for _ in range(600)]
    held.clear()

one_heap()
bytearray(30_000_000)
before = resident()
thread = threading.Thread(target=work)
thread.start()
thread.join()
give_memory_back()
print(resident() - before)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert int(ran.stdout) < 5_000_000
