"""Freed memory stays with the process, and goes back in the end."""

from __future__ import annotations

import ctypes
import resource

import psutil
import pytest
import torch

from subllm.making.recovery.heap import apart, kept_heap

MEGABYTES = 48  # more than glibc ever keeps by itself

pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc"
)


def faults() -> int:
    """How often this process asked for a page while it used and dropped some memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [torch.ones(MEGABYTES << 18) for _ in range(3)]
    held.clear()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_memory_is_not_asked_for_anew() -> None:
    before = faults()
    with kept_heap():
        faults()
        assert min(faults() for _ in range(3)) < before / 10
    assert faults() > before / 2


def test_memory_goes_back_in_the_end() -> None:
    process = psutil.Process()
    with kept_heap():
        faults()
        kept = process.memory_info().rss
    assert process.memory_info().rss < kept - 2 * (MEGABYTES << 20)


def test_it_goes_back_after_an_error_too() -> None:
    before = faults()
    with pytest.raises(ValueError, match="x"), kept_heap():
        faults()
        assert min(faults() for _ in range(3)) < before / 10  # of something else, a few
        raise ValueError("x")
    assert faults() > 10


def test_what_lies_apart_goes_back_at_once() -> None:
    process = psutil.Process()
    like = torch.ones(1, dtype=torch.bfloat16)
    with kept_heap():
        before = process.memory_info().rss
        held = apart((MEGABYTES, 1 << 20), like)
        assert held.shape == (MEGABYTES, 1 << 20) and held.dtype == like.dtype
        held.fill_(1)
        assert process.memory_info().rss > before + (MEGABYTES << 20)
        del held
        assert process.memory_info().rss < before + (MEGABYTES << 19)
