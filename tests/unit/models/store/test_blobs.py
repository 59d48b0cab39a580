"""Blobs: whole and verified, or not there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from subllm.errors import CorruptError, DigestError, DiskFullError, StoreError
from subllm.models.store.manifest import sha256_of
from subllm.models.store.store import Store
from unit.models.store.samples import files_below


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def leftovers(store: Store) -> set[str]:
    return files_below(store.workspace.partials)


def overwrite(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


def test_write_read_back(store: Store) -> None:
    with store.blobs.writer() as writer:
        writer.write(b"abc")
        writer.write(bytearray(b"def"))
        writer.write(memoryview(b"ghi"))
        assert writer.size == 9
        digest = writer.commit()
    assert digest == sha256_of(b"abcdefghi")
    assert store.blobs.has(digest)
    assert store.blobs.read_bytes(digest) == b"abcdefghi"
    assert store.blobs.size(digest) == 9
    assert store.blobs.verify(digest)
    assert stat.S_IMODE(store.blobs.path(digest).stat().st_mode) == 0o444
    assert leftovers(store) == set()


def test_no_commit_leaves_nothing(store: Store) -> None:
    with store.blobs.writer() as writer:
        writer.write(b"abc")
    assert files_below(store.workspace.blobs) == leftovers(store) == set()
    with pytest.raises(RuntimeError, match="stop"), store.blobs.writer() as writer:
        writer.write(b"abc")
        raise RuntimeError("stop")
    assert files_below(store.workspace.blobs) == leftovers(store) == set()


def test_another_digest_than_expected_is_refused(store: Store) -> None:
    expected = sha256_of(b"abc")
    with (
        pytest.raises(DigestError, match="nothing was stored"),
        store.blobs.writer(expected) as writer,
    ):
        writer.write(b"abd")
        writer.commit()
    assert files_below(store.workspace.blobs) == leftovers(store) == set()
    with store.blobs.writer(expected) as writer:
        writer.write(b"abc")
        assert writer.commit() == expected


def test_a_size_that_cannot_fit_is_refused_before_writing(store: Store) -> None:
    store.blobs.put(b"x")
    with (
        pytest.raises(DiskFullError, match="free some space"),
        store.blobs.writer(size=1 << 60),
    ):
        pytest.fail("the context must not be entered")
    assert leftovers(store) == set()


@pytest.mark.parametrize(
    "digest",
    ["", "../../version", "sha256-" + "0" * 63, "sha256-" + "A" * 64, "sha256-" + "0" * 64 + "\n"],
)
def test_digests_are_no_paths(store: Store, digest: str) -> None:
    store.blobs.put(b"x")
    for use in (store.blobs.has, store.blobs.path, store.blobs.verify, store.blobs.read_bytes):
        with pytest.raises(StoreError, match="not a digest"):
            use(digest)


def test_a_missing_blob(store: Store) -> None:
    digest = sha256_of(b"nowhere")
    assert not store.blobs.has(digest)
    assert not store.blobs.hold(digest)
    for use in (store.blobs.path, store.blobs.verify, store.blobs.read_bytes, store.blobs.size):
        with pytest.raises(StoreError, match="is missing"):
            use(digest)


def test_damage_is_seen_and_healed_by_writing_again(store: Store) -> None:
    digest = store.blobs.put(b"good")
    overwrite(store.blobs.path(digest), b"baad")
    assert not store.blobs.verify(digest)
    with pytest.raises(CorruptError):
        store.blobs.read_bytes(digest)
    store.blobs.put(b"good")
    assert store.blobs.verify(digest)


def test_adopt_moves_a_file_of_the_same_disk(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "part"
    file.write_bytes(b"abc")
    inode = file.stat().st_ino
    digest = store.blobs.adopt(file)
    assert digest == sha256_of(b"abc")
    assert not file.exists()
    assert store.blobs.path(digest).stat().st_ino == inode
    assert stat.S_IMODE(store.blobs.path(digest).stat().st_mode) == 0o444


def test_adopt_refuses_another_digest_and_keeps_the_file(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "part"
    file.write_bytes(b"abc")
    with pytest.raises(DigestError):
        store.blobs.adopt(file, expected=sha256_of(b"other"))
    assert file.read_bytes() == b"abc"
    file.write_bytes(b"abcd")  # and it may still be written
    with pytest.raises(StoreError, match="No such file"):
        store.blobs.adopt(tmp_path / "nothing")


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_adopt_copies_what_others_could_change(store: Store, tmp_path: Path, link: object) -> None:
    kept = tmp_path / "kept"
    kept.write_bytes(b"abc")
    other = tmp_path / "other"
    link(kept, other)  # type: ignore[operator]
    digest = store.blobs.adopt(other)
    assert not other.is_symlink()
    assert not other.exists()
    kept.write_bytes(b"changed")
    assert store.blobs.read_bytes(digest) == b"abc"


def test_adopt_copies_from_another_disk(store: Store) -> None:
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == store.root.parent.stat().st_dev:
        pytest.skip("no second file system here")
    file = shm / f"subllm-test-{os.getpid()}"
    try:
        file.write_bytes(b"abc" * 1_000_000)
        digest = store.blobs.adopt(file)
        assert not file.exists()
    finally:
        file.unlink(missing_ok=True)
    assert store.blobs.verify(digest)


def test_progress_of_verify_is_in_bytes(store: Store) -> None:
    digest = store.blobs.put(bytes(3_000_000))
    seen: list[int] = []
    assert store.blobs.verify(digest, seen.append)
    assert sum(seen) == 3_000_000
    assert len(seen) > 1
