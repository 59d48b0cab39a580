"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import nullcontext
from pathlib import Path

import pytest

from subllm.files import Replacement, write_whole


def test_the_target_is_as_it_was_until_commit(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_bytes(b"old")
    new = Replacement(target)
    new.file.write(b"new")
    new.file.flush()
    assert target.read_bytes() == b"old"
    new.commit()
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


def test_an_exception_leaves_the_old_file_alone(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), Replacement(target) as new:
        new.file.write(b"new")
        raise ZeroDivisionError
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_rename_that_fails_leaves_nothing_beside_the_target(tmp_path: Path) -> None:
    target = tmp_path / "a"
    (target / "in the way").mkdir(parents=True)
    with pytest.raises(OSError):
        write_whole(target, b"new")
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("size", [8, 1 << 20])
def test_a_full_disk_leaves_nothing(tmp_path: Path, size: int) -> None:
    (tmp_path / "a.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "a", bytes(size))
    assert list(tmp_path.iterdir()) == []


def test_what_a_crash_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "a.partial").write_bytes(b"half of something longer")
    write_whole(tmp_path / "a", b"whole")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"whole")]


def test_place_and_mode_can_be_given(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    before = os.umask(0o077)
    try:
        write_whole(tmp_path / "a", b"x", scratch / "tmp", mode=0o644)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644
    assert list(scratch.iterdir()) == []


def test_bytes_and_directory_are_flushed_around_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        steps.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def noted_replace(self: Path, target: Path) -> Path:
        steps.append("rename")
        rename(self, target)
        return target

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    write_whole(tmp_path / "a", b"x")
    assert steps == ["file", "rename", "directory"]


@pytest.mark.parametrize(("code", "raises"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_directory_that_cannot_be_flushed(
    code: int, raises: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems have no such thing; a failing disk is told."""
    fsync = os.fsync

    def refusing(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refusing)
    with pytest.raises(OSError) if raises else nullcontext():
        write_whole(tmp_path / "a", b"x")
    assert (tmp_path / "a").read_bytes() == b"x"
