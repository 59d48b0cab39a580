"""Processes that are killed, that run at once, or that find the disk full."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from subllm.errors import DiskFullError, LockedError, StoreError, UnknownNameError
from subllm.models.store.collect import gc, remove
from subllm.models.store.manifest import encode, sha256_of
from subllm.models.store.store import Store
from subllm.models.store.verify import verify
from unit.models.store.samples import (
    BASE,
    Child,
    add_base,
    add_model,
    blobs_of,
    files_below,
    killed_at,
    model_manifest,
)

PYTHON = f"{BASE}-python"


MEMORY = Path("/dev/shm")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """In memory where there is such a file system: a kill does not care whether bytes reached the
    disk, and waiting for thousands of them there was most of the time of these tests."""
    if not os.access(MEMORY, os.W_OK):
        yield Store(tmp_path / "store")
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        yield Store(Path(directory) / "store")


def check_whole(store: Store) -> None:
    """Every name leads to a manifest whose blobs match; nothing else survives a gc."""
    store = Store(store.root)
    for result in verify(store):
        # The packed files of these tests are no packed files; only their bytes count here.
        assert not [p for p in result.problems if "missing" in p.what or "digest" in p.what]
    gc(store)
    needed = set()
    for name in store.names():
        manifest = store.manifest(name)
        if manifest.kind == "base":
            needed |= {file.digest for file in manifest.files}
        else:
            needed |= {manifest.blobs.own, manifest.blobs.shared, manifest.blobs.tokenizer}
    assert blobs_of(store) == needed
    assert files_below(store.workspace.partials) == set()
    assert not list(store.workspace.locks.glob("writer-*"))


def kill_everywhere(
    work: Callable[[], None], check: Callable[[], None], again: Callable[[], None]
) -> int:
    """Kill `work` before each of its file operations in turn; how many there were."""
    for step in range(1000):
        killed = killed_at(step, work)
        check()
        if not killed:
            return step
        again()
    pytest.fail("the work never ended")


def test_killed_while_adding_a_model_to_nothing(store: Store) -> None:
    def work() -> None:
        add_model(Store(store.root), PYTHON, b"own")

    def check() -> None:
        assert list(Store(store.root).names()) in ([], [PYTHON])

    def again() -> None:
        """A new start beside the leftovers, then the state as before."""
        work()
        remove(Store(store.root), PYTHON)
        check_whole(store)
        shutil.rmtree(store.root)

    assert kill_everywhere(work, check, again) > 40
    check_whole(store)


def test_killed_while_replacing_a_model(store: Store) -> None:
    old = add_model(store, PYTHON, b"old")
    new = sha256_of_model(b"new")
    seen = set()

    def check() -> None:
        digest = Store(store.root).resolve(PYTHON)
        seen.add(digest)
        check_whole(store)

    def again() -> None:
        add_model(store, PYTHON, b"old")
        check_whole(store)

    assert kill_everywhere(lambda: void(add_model(Store(store.root), PYTHON, b"new")), check, again)
    assert seen == {old, new}


def sha256_of_model(own: bytes) -> str:
    manifest = model_manifest(PYTHON, own, b"shared", b"tokenizer", sha256_of(b"some base"))
    return sha256_of(encode(manifest))


def void(_result: object) -> None:
    return None


def test_killed_while_removing(store: Store) -> None:
    add_model(store, f"{BASE}-java", b"java")
    add_model(store, PYTHON, b"own")

    def check() -> None:
        names = list(Store(store.root).names())
        assert names in ([f"{BASE}-java"], [f"{BASE}-java", PYTHON])
        check_whole(store)

    def again() -> None:
        add_model(store, PYTHON, b"own")

    steps = kill_everywhere(lambda: void(remove(Store(store.root), PYTHON)), check, again)
    assert steps > 5


def test_killed_while_collecting(store: Store) -> None:
    add_model(store, PYTHON, b"own")

    def litter() -> None:
        store.blobs.put(b"stray")
        store.partial("x").write_bytes(b"x")

    litter()
    steps = kill_everywhere(
        lambda: void(gc(Store(store.root))), lambda: void(store.model(PYTHON)), litter
    )
    assert steps > 5
    check_whole(store)


def test_killed_while_adopting(store: Store, tmp_path: Path) -> None:
    store.blobs.put(b"first")
    file = tmp_path / "part"
    digest = sha256_of(b"abc")

    def again() -> None:
        file.unlink(missing_ok=True)
        file.write_bytes(b"abc")

    def check() -> None:
        there = store.blobs.has(digest)
        assert there or file.exists()
        assert not there or store.blobs.verify(digest)
        gc(store)

    again()
    steps = kill_everywhere(
        lambda: void(Store(store.root).blobs.adopt(file)),
        check,
        again,
    )
    assert steps > 5


def test_killed_in_the_middle_of_a_blob(store: Store) -> None:
    def work(tell: Callable[[], None], wait: Callable[[], None]) -> None:
        with Store(store.root).blobs.writer(size=2_000_000) as writer:
            writer.write(bytes(1_000_000))
            tell()
            wait()

    child = Child(work)
    child.hear()
    assert gc(store).partials == ()  # it is at work: spared
    assert len(files_below(store.workspace.partials)) == 1
    child.kill()
    report = gc(store)
    assert len(report.partials) == 1
    assert report.freed == 1_000_000
    check_whole(store)


def test_collection_beside_a_writer_in_another_process(store: Store) -> None:
    def work(tell: Callable[[], None], wait: Callable[[], None]) -> None:
        mine = Store(store.root)
        with mine.lock("extract"):
            for content in (b"own", b"shared", b"tokenizer"):
                mine.blobs.put(content)
            mine.partial("extract").write_bytes(b"x")
            tell()
            wait()
            digest = mine.put_manifest(
                model_manifest(PYTHON, b"own", b"shared", b"tokenizer", sha256_of(b""))
            )
            tell()
            wait()
            mine.set_ref(PYTHON, digest)

    child = Child(work)
    for _ in range(2):
        child.hear()
        assert gc(store).freed == 0
        child.tell()
    child.join()
    assert list(store.names()) == [PYTHON]
    assert len(gc(store).partials) == 1
    check_whole(store)

    remove(store, PYTHON)
    killed = Child(work)
    killed.hear()
    killed.kill()
    assert len(gc(store).blobs) == 3
    check_whole(store)


def test_a_lock_excludes_processes_names_its_holder_and_dies_with_it(store: Store) -> None:
    def work(tell: Callable[[], None], wait: Callable[[], None]) -> None:
        with Store(store.root).lock("pull tiny"):
            tell()
            wait()

    child = Child(work)
    child.hear()
    expected = rf"process {child.pid} holds the lock 'pull tiny'"
    with pytest.raises(LockedError, match=expected), store.lock("pull tiny", wait=False):
        pytest.fail("the lock is held elsewhere")
    with store.lock("another", wait=False):
        pass
    waits: list[str] = []

    def on_wait(message: str) -> None:
        waits.append(message)
        child.kill()

    with store.lock("pull tiny", on_wait=on_wait):
        assert waits == [f"waiting for process {child.pid} (pull tiny)"]


def test_a_lock_is_handed_on_when_its_holder_ends_well(store: Store) -> None:
    def work(tell: Callable[[], None], wait: Callable[[], None]) -> None:
        with Store(store.root).lock("x"):
            tell()
            wait()

    child = Child(work)
    child.hear()
    with store.lock("x", on_wait=lambda _message: child.tell()):
        child.join()


def test_waiting_for_oneself_is_an_error_not_a_hang(store: Store) -> None:
    with (
        store.lock("x"),
        pytest.raises(LockedError, match="already"),
        Store(store.root).lock("x"),
    ):
        pytest.fail("the lock is held already")
    with store.lock("x", wait=False):
        pass


def test_two_processes_at_once(store: Store) -> None:
    """Adding, moving, removing and collecting for a while, with no error and no loss."""

    def work(seed: int) -> Callable[[Callable[[], None], Callable[[], None]], None]:
        def run(_tell: Callable[[], None], _wait: Callable[[], None]) -> None:
            mine, chance = Store(store.root), random.Random(seed)
            for _ in range(40):
                name = f"{PYTHON}-t{chance.randrange(3)}"
                add_model(mine, name, b"own%d" % chance.randrange(4))
                if chance.random() < 0.3:
                    with suppress(UnknownNameError):  # the other one was quicker
                        remove(mine, name)

        return run

    children = [Child(work(seed)) for seed in (1, 2)]
    while any(child.runs() for child in children):
        gc(store)
    for child in children:
        child.join()
    check_whole(store)


def test_a_disk_that_fills_up_while_writing(tiny_disk: Path) -> None:
    store = Store(tiny_disk / "store")
    add_base(store, b"weights")
    with (
        pytest.raises(DiskFullError, match="subllm gc"),
        store.blobs.writer() as writer,
    ):
        for _ in range(100):
            writer.write(bytes(100_000))
    with pytest.raises(DiskFullError, match="are needed"), store.blobs.writer(size=2 << 20):
        pytest.fail("the context must not be entered")
    check_whole(store)
    store.blobs.put(bytes(500_000))


def test_a_full_disk_keeps_its_store_and_can_be_cleaned(tiny_disk: Path, tmp_path: Path) -> None:
    store = Store(tiny_disk / "store")
    base = add_base(store, b"weights")
    store.blobs.put(bytes(300_000))
    filler = tiny_disk / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))
    outside = tmp_path / "model.bin"
    outside.write_bytes(b"x" * 5000)
    for change in (
        lambda: store.blobs.put(b"x" * 5000),
        lambda: store.blobs.adopt(outside),
        lambda: add_model(store, PYTHON, b"own"),
        lambda: store.put_manifest(store.manifest(base).model_copy(update={"revision": "2"})),
    ):
        with pytest.raises(DiskFullError):
            change()
        assert store.names() == {BASE: base}
        assert files_below(store.workspace.partials) == set()
    assert outside.exists()
    assert gc(store).freed >= 300_000
    add_model(store, PYTHON, b"own")
    filler.unlink()
    check_whole(store)


def test_a_full_disk_at_the_first_write(tiny_disk: Path) -> None:
    with (tiny_disk / "filler").open("wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(bytes(4096))
    store = Store(tiny_disk / "store")
    with pytest.raises(StoreError):
        store.blobs.put(b"x")
    (tiny_disk / "filler").unlink()
    assert Store(store.root).names() == {}
    store.blobs.put(b"x")
