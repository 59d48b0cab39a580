"""Names, manifests and plans of a store; opening it; its version."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from subllm.errors import (
    CorruptError,
    StoreError,
    StoreVersionError,
    UnknownNameError,
    UsageError,
)
from subllm.models.store.collect import gc, remove
from subllm.models.store.manifest import sha256_of
from subllm.models.store.sizes import all_sizes, sizes_of
from subllm.models.store.store import Store
from subllm.models.store.verify import verify
from unit.models.store.samples import (
    BASE,
    RUN,
    add_base,
    add_model,
    base_manifest,
    blobs_of,
    model_manifest,
)

PYTHON = f"{BASE}-python"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_opening_and_reading_create_nothing(store: Store) -> None:
    assert store.names() == {}
    assert all_sizes(store) == {}
    assert verify(store) == []
    assert store.find_plan(sha256_of(b"plan")) is None
    assert gc(store, dry_run=True).freed == gc(store).freed == 0
    with pytest.raises(UnknownNameError):
        remove(store, BASE)
    assert not store.root.exists()


def test_names_lead_to_manifests(store: Store) -> None:
    base = add_base(store, b"weights")
    model = add_model(store, PYTHON, b"own", base=base)
    reopened = Store(store.root)
    assert reopened.names() == {BASE: base, PYTHON: model}
    assert reopened.resolve(PYTHON) == model
    assert reopened.manifest(PYTHON) == reopened.manifest(model)
    assert reopened.model(PYTHON).base.manifest == base
    assert reopened.base(BASE) == base_manifest(b"weights")
    assert reopened.run_record(model) == RUN
    assert reopened.run_record(base) is None
    with pytest.raises(UsageError, match="is a base, not a model"):
        reopened.model(BASE)
    with pytest.raises(UsageError, match="is a model, not a base"):
        reopened.base(PYTHON)


def test_an_unknown_name_gets_the_nearest(store: Store) -> None:
    add_base(store, b"weights")
    add_model(store, PYTHON, b"own")
    for wrong in ("tiny:1m-pyton", "Tiny:1M-Python", "tiny1m-python"):
        with pytest.raises(UnknownNameError) as caught:
            store.resolve(wrong)
        assert PYTHON in caught.value.nearest
    for hostile in ("../../version", "refs", "tiny:1m\0", "blobs", ""):
        with pytest.raises(UnknownNameError, match="subllm list"):
            store.manifest(hostile)
    with pytest.raises(UsageError, match="longer than"):
        store.resolve("x" * 100_000)


def test_a_name_moves_to_the_newest(store: Store) -> None:
    first = add_model(store, PYTHON, b"one")
    with store.writing():
        store.blobs.put(b"two")
        second = store.put_manifest(
            model_manifest(PYTHON, b"two", b"shared", b"tokenizer", sha256_of(b""))
        )
        assert store.set_ref(PYTHON, second) == first
        assert store.set_ref(PYTHON, second) == second
    assert store.resolve(PYTHON) == second


def test_a_name_leads_to_whole_models_only(store: Store) -> None:
    digest = store.put_manifest(
        model_manifest(PYTHON, b"own", b"shared", b"tokenizer", sha256_of(b""))
    )
    with pytest.raises(StoreError, match=r"blob .* is missing"):
        store.set_ref(PYTHON, digest)
    with pytest.raises(StoreError, match=r"manifest .* is missing"):
        store.set_ref(PYTHON, sha256_of(b"nothing"))
    assert store.names() == {}


def test_a_name_fits_what_it_names(store: Store) -> None:
    base = add_base(store, b"weights")
    model = add_model(store, PYTHON, b"own")
    for name, digest in [
        (PYTHON, base),
        (BASE, model),
        (f"{BASE}-java", model),
        (f"{BASE}-dense", model),
        ("../x", model),
    ]:
        with pytest.raises(UsageError):
            store.set_ref(name, digest)
    assert store.set_ref(f"{BASE}-python-copy", model) is None
    assert store.set_ref("other:1m", base) is None


def test_plans_are_found_by_name_only_and_only_whole(store: Store) -> None:
    plan = sha256_of(b"plan")
    add_base(store, b"weights")
    add_model(store, f"{BASE}-java", b"java")
    add_model(store, PYTHON, b"own", plan=plan)
    found = store.find_plan(plan)
    assert found is not None
    assert found[0] == PYTHON
    assert found[1].plan == plan
    own = store.blobs.path(found[1].blobs.own)
    kept = own.read_bytes()
    own.unlink()
    assert store.find_plan(plan) is None
    store.blobs.put(kept)
    damage(store.manifest_path(store.resolve(f"{BASE}-java")))
    assert store.find_plan(plan) is not None
    remove(store, PYTHON)
    assert store.find_plan(plan) is None


def damage(path: Path) -> None:
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_changed_manifest_is_not_used(store: Store) -> None:
    digest = add_model(store, PYTHON, b"own")
    damage(store.manifest_path(digest))
    with pytest.raises(CorruptError, match="subllm verify"):
        store.manifest(PYTHON)


def test_a_damaged_sidecar_says_so(store: Store) -> None:
    digest = add_model(store, PYTHON, b"own")
    store.run_record_path(digest).write_text("{}")
    with pytest.raises(CorruptError, match="times and memory only"):
        store.run_record(digest)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]x",
        "3",
        '["a:1b"]',
        '{"a:1b": 3}',
        '{"a:1b": "sha256-0"}',
        json.dumps({"../x": "sha256-" + "0" * 64}),
    ],
)
def test_a_damaged_index_is_one_clear_line(store: Store, content: str) -> None:
    add_base(store, b"weights")
    store.workspace.refs.write_text(content)
    with pytest.raises(CorruptError, match=r"index .* is damaged"):
        store.names()
    with pytest.raises(CorruptError, match=r"index .* is damaged"):
        gc(store)
    assert blobs_of(store) == {sha256_of(b"weights")}


def test_sidecars_can_be_replaced(store: Store) -> None:
    digest = add_model(store, PYTHON, b"own")
    changed = RUN.model_copy(update={"seconds": 9.0})
    store.put_run_record(digest, changed)
    assert store.run_record(digest) == changed


def test_the_version_is_written_and_read(store: Store) -> None:
    add_base(store, b"weights")
    assert (store.root / "version").read_text() == "1\n"
    Store(store.root)


@pytest.mark.parametrize(
    ("content", "hint"),
    [("2\n", "update subllm"), ("0\n", "another directory"), ("x\0y", "another directory")],
)
def test_another_version_is_refused_and_untouched(store: Store, content: str, hint: str) -> None:
    add_base(store, b"weights")
    (store.root / "version").write_text(content)
    before = sorted(store.root.rglob("*"))
    with pytest.raises(StoreVersionError, match=hint):
        Store(store.root)
    assert sorted(store.root.rglob("*")) == before


def test_blobs_without_a_version_are_refused(store: Store) -> None:
    add_base(store, b"weights")
    (store.root / "version").unlink()
    with pytest.raises(StoreVersionError, match="no version file"):
        Store(store.root)


def test_a_root_with_other_files_may_become_a_store(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("")
    store = Store(tmp_path)
    add_base(store, b"weights")
    gc(store)
    assert (tmp_path / "config.toml").exists()


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="not a directory"):
        Store(tmp_path / "file")
    with pytest.raises(StoreError, match="Not a directory"):
        Store(tmp_path / "file" / "below")


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Store]:
    """A store with a base and a model on a disk that cannot be written."""
    root = tmp_path / "mount"
    root.mkdir()
    if os.geteuid() == 0:
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "subllm-test", str(root)]
        if subprocess.run(mount, check=False).returncode:
            pytest.skip("a read-only disk cannot be mounted here")
    store = Store(root)
    base = add_base(store, b"weights")
    add_model(store, PYTHON, b"own", base=base)
    store.blobs.put(b"garbage")
    try:
        if os.geteuid() == 0:
            subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
        else:
            for path in [root, *root.rglob("*")]:
                path.chmod(0o555 if path.is_dir() else 0o444)
        yield store
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", str(root)], check=True)
        else:
            for path in [root, *root.rglob("*")]:
                path.chmod(0o755)


def test_a_read_only_store_can_be_read(read_only: Store) -> None:
    store = Store(read_only.root)
    assert list(store.names()) == [BASE, PYTHON]
    assert sizes_of(store, PYTHON).own > 0
    assert verify(store, [BASE])[0].ok
    assert gc(store, dry_run=True).blobs == (f"blobs/{sha256_of(b'garbage')}",)


def test_a_read_only_store_refuses_to_change_in_one_line(read_only: Store) -> None:
    store = Store(read_only.root)
    for change in (
        lambda: gc(store),
        lambda: remove(store, PYTHON),
        lambda: store.blobs.put(b"x"),
        lambda: store.set_ref("other:1m", store.resolve(BASE)),
        lambda: store.lock("x").__enter__(),
    ):
        with pytest.raises(StoreError, match="cannot be written"):
            change()
    assert list(store.names()) == [BASE, PYTHON]


def test_listing_many_models_reads_each_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        add_model(store, f"{PYTHON}-t{number}", b"%d" % number)
    read: list[str] = []
    plain = Store.manifest
    monkeypatch.setattr(
        Store, "manifest", lambda self, name: read.append(name) or plain(self, name)
    )
    assert len(all_sizes(Store(store.root))) == len(read) == len(set(read)) == 20
