"""Files in large pages: the same bytes, whichever way they come."""

from __future__ import annotations

import gc
import mmap
import os
import re
from pathlib import Path

import numpy as np
import pytest

from subllm.sparsity import mapping
from subllm.sparsity.mapping import Bytes, MappedFile, large_page

PAGE = 2 << 20
SIZE = 8 * PAGE + 12_345


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Written in pieces of 4 KiB, as the page cache then keeps it."""
    content = np.random.default_rng(0).integers(0, 256, SIZE, np.uint8).tobytes()
    path = tmp_path / "weights"
    with path.open("wb", buffering=0) as file:
        for start in range(0, SIZE, 4096):
            file.write(content[start : start + 4096])
        os.fsync(file.fileno())
    return path


def opened(path: Path) -> MappedFile:
    with path.open("rb") as file:
        return MappedFile(path, file.fileno())


def large_bytes(view: Bytes) -> int:
    """Of the mapping that a view is of, in large pages, after all of it was touched; by another
    reading of smaps than the code's."""
    int(view[::4096].sum())
    address = view.ctypes.data
    for entry in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text()):
        begin, end = (int(part, 16) for part in entry.split(" ", 1)[0].split("-"))
        if begin <= address < end:
            sizes = re.findall(r"(?:FilePmdMapped|AnonHugePages): +(\d+) kB", entry)
            return sum(map(int, sizes)) << 10
    raise AssertionError("no such mapping")


def has_large_files(path: Path) -> bool:
    """Whether this kernel keeps files here in large pages at all."""
    if large_page() != PAGE:
        return False
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        whole.madvise(mmap.MADV_HUGEPAGE)
        return large_bytes(np.frombuffer(whole, np.uint8)) > 0


def test_a_file_that_was_just_written_is_read_in_large_pages(small: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(bytes(4 * PAGE))
    os.sync()
    if not has_large_files(other):
        pytest.skip("the page cache here has no large pages for files")
    with_them = opened(small)
    with_them.settle(copy=False)
    assert large_bytes(with_them.bytes) >= 7 * PAGE
    assert with_them.bytes.tobytes() == small.read_bytes()


def without_large_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "_mapped_large", lambda address, size: 0)
    if large_page() == 0:
        pytest.skip("this system gives no large pages")


def test_a_copy_where_the_page_cache_has_none(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_large_files(monkeypatch)
    content = small.read_bytes()
    first, second = opened(small), opened(small)
    before = first.bytes
    first.settle(copy=True)
    second.settle(copy=True)
    assert first.bytes.ctypes.data == second.bytes.ctypes.data != before.ctypes.data
    assert first.bytes.ctypes.data % PAGE == 0
    assert first.bytes.tobytes() == before.tobytes() == content
    assert not first.bytes.flags.writeable
    # Less than a page at the end, and what the system has no page for.
    assert large_bytes(first.bytes) >= 6 * PAGE
    view = first.bytes[100:200]
    first.close()
    second.close()
    gc.collect()
    assert view.tobytes() == content[100:200] and len(mapping._copies) == 1
    del view
    gc.collect()
    assert len(mapping._copies) == 0


def test_no_copy_unasked_or_without_memory(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_large_files(monkeypatch)
    mapped = opened(small)
    address = mapped.bytes.ctypes.data
    mapped.settle(copy=False)
    monkeypatch.setattr(mapping, "free_memory", lambda: SIZE)
    mapped.settle(copy=True)
    assert mapped.bytes.ctypes.data == address
    assert mapped.bytes.tobytes() == small.read_bytes()


def test_a_file_that_took_the_place_of_the_mapped_one_is_left_alone(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_large_files(monkeypatch)
    content = small.read_bytes()
    mapped = opened(small)
    small.unlink()
    mapped.settle(copy=True)
    small.write_bytes(bytes(SIZE))
    mapped.settle(copy=True)
    assert mapped.bytes.tobytes() == content


def test_small_and_empty_files(tmp_path: Path) -> None:
    path = tmp_path / "little"
    path.write_bytes(b"12345678")
    mapped = opened(path)
    mapped.settle(copy=True)
    assert mapped.bytes.tobytes() == b"12345678"
    mapped.close()
    path.write_bytes(b"")
    with pytest.raises(ValueError):
        opened(path)


def test_systems_that_have_no_large_pages(tmp_path: Path) -> None:
    assert large_page(tmp_path) == 0
    (tmp_path / "enabled").write_text("always madvise [never]\n")
    (tmp_path / "hpage_pmd_size").write_text("2097152\n")
    assert large_page(tmp_path) == 0
    (tmp_path / "enabled").write_text("always [madvise] never\n")
    assert large_page(tmp_path) == 2 << 20
