"""Files in large pages: the same bytes, whichever way they come."""

from __future__ import annotations

import gc
import re
from pathlib import Path

import numpy as np
import pytest

from subllm.kernels.sparsity import mapping
from subllm.kernels.sparsity.mapping import Bytes, MappedFile, large_page

PAGE = 2 << 20
SIZE = 8 * PAGE + 12_345


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(np.random.default_rng(0).integers(0, 256, SIZE, np.uint8).tobytes())
    return path


def opened(path: Path) -> MappedFile:
    with path.open("rb") as opened:
        return MappedFile(opened.fileno())


def large_bytes(view: Bytes) -> int:
    """Of the memory that a view is of, in large pages."""
    address = view.ctypes.data
    for entry in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text()):
        begin, end = (int(part, 16) for part in entry.split(" ", 1)[0].split("-"))
        if begin <= address < end:
            found = re.search(r"AnonHugePages: +(\d+) kB", entry)
            assert found
            return int(found[1]) << 10
    raise AssertionError("no such mapping")


pages = pytest.mark.skipif(not large_page(), reason="this system gives no large pages")


@pages
def test_a_copy_in_large_pages_that_all_share(file: Path) -> None:
    content = file.read_bytes()
    first, second = opened(file), opened(file)
    before = first.bytes
    first.copy()
    second.copy()
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


@pages
def test_no_copy_without_memory(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mapped = opened(file)
    address = mapped.bytes.ctypes.data
    monkeypatch.setattr(mapping, "free_memory", lambda: SIZE)
    mapped.copy()
    assert mapped.bytes.ctypes.data == address
    assert mapped.bytes.tobytes() == file.read_bytes()


@pages
def test_a_file_that_took_the_place_of_the_mapped_one_has_a_copy_of_its_own(file: Path) -> None:
    content = file.read_bytes()
    former = opened(file)
    former.copy()
    file.unlink()
    file.write_bytes(bytes(SIZE))
    other = opened(file)
    other.copy()
    assert former.bytes.tobytes() == content
    assert other.bytes.tobytes() == bytes(SIZE)


def test_small_and_empty_files(tmp_path: Path) -> None:
    path = tmp_path / "little"
    path.write_bytes(b"12345678")
    mapped = opened(path)
    mapped.copy()
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
