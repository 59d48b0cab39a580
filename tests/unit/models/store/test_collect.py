"""Removing names, collecting garbage, and the sizes that foretell both."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subllm.errors import StoreError, UnknownNameError
from subllm.models.store.collect import gc, remove
from subllm.models.store.manifest import sha256_of
from subllm.models.store.recovery_state import Owner, claim, owner_of, state_path
from subllm.models.store.sizes import all_sizes, sizes_of
from subllm.models.store.store import Store
from subllm.models.store.verify import verify
from unit.models.store.samples import (
    BASE,
    add_base,
    add_model,
    base_manifest,
    blobs_of,
    files_below,
    model_manifest,
)

PYTHON = f"{BASE}-python"
JAVA = f"{BASE}-java"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def digests(*contents: bytes) -> set[str]:
    return {sha256_of(content) for content in contents}


def test_removing_frees_what_only_that_name_needed(store: Store) -> None:
    add_model(store, PYTHON, bytes(1000), shared=bytes(500))
    java = add_model(store, JAVA, b"java", shared=bytes(500))
    sizes = all_sizes(store)
    assert sizes[PYTHON].own == 1000
    assert sizes[PYTHON].shared == 500 + len(b"tokenizer")
    assert sizes[PYTHON].shared_with == (JAVA,)
    assert sizes[PYTHON].total == 1509

    report = remove(store, PYTHON)
    assert report.freed >= 1000
    assert report.shared == 509
    assert report.shared_with == (JAVA,)
    assert store.names() == {JAVA: java}
    assert blobs_of(store) == digests(b"java", bytes(500), b"tokenizer")
    assert sizes_of(store, JAVA).own == 4 + 509
    assert sizes_of(store, JAVA).shared_with == ()
    assert gc(store).freed == 0

    last = remove(store, JAVA)
    assert (last.shared, last.shared_with) == (0, ())
    assert files_below(store.workspace.blobs, store.workspace.manifests) == set()


def test_removing_an_unknown_name(store: Store) -> None:
    add_model(store, PYTHON, b"own")
    with pytest.raises(UnknownNameError, match="did you mean"):
        remove(store, f"{BASE}-pyton")
    with pytest.raises(UnknownNameError):
        sizes_of(store, JAVA)


def test_the_state_of_a_recovery_lives_as_long_as_its_model(store: Store) -> None:
    first = add_model(store, PYTHON, b"own")
    add_model(store, JAVA, b"java")
    with store.lock("recover"):
        path = claim(store, Owner(PYTHON, "same masks", (first,)))
        assert path == state_path(store.workspace, PYTHON)
        (path / "moments").write_bytes(bytes(5000))
        assert gc(store).recoveries == ()
    assert owner_of(path) == Owner(PYTHON, "same masks", (first,))
    assert gc(store).recoveries == ()
    assert sizes_of(store, PYTHON).recovery > 5000
    assert sizes_of(store, JAVA).recovery == 0

    # A better checkpoint is claimed before the name moves to it.
    better = add_model(store, f"{PYTHON}-better", b"better")
    with store.lock("recover"):
        claim(store, Owner(PYTHON, "same masks", (first, better)))
        assert gc(store).recoveries == ()
        store.set_ref(PYTHON, better)
    assert gc(store).recoveries == ()
    assert (path / "moments").exists()

    with store.lock("recover"):  # in use, whatever its name means meanwhile
        store.workspace.pin(path)
        other = add_model(store, PYTHON, b"pruned anew")
        assert gc(store).recoveries == ()
    assert sizes_of(store, PYTHON).recovery == 0
    assert gc(store, dry_run=True).recoveries == (f"recovery/{path.name}",)
    assert path.exists()
    assert gc(store).freed > 5000
    assert not path.exists()

    with store.lock("recover"):
        claim(store, Owner(PYTHON, "new masks", (other,)))
        (path / "moments").write_bytes(bytes(7000))
    assert remove(store, PYTHON).freed > 7000
    assert not path.exists()


def test_the_state_of_a_model_to_be_lives_as_long_as_its_origin(store: Store) -> None:
    origin = add_model(store, PYTHON, b"own")
    new = f"{PYTHON}-tuned"
    with store.lock("recover"):
        path = claim(store, Owner(new, "own text", (), 0, PYTHON, origin))
    assert owner_of(path) == Owner(new, "own text", (), 0, PYTHON, origin)
    assert gc(store).recoveries == ()
    made = add_model(store, f"{PYTHON}-other", b"learned")
    with store.lock("recover"):
        claim(store, Owner(new, "own text", (made,), 0, PYTHON, origin))
    assert gc(store).recoveries == ()
    store.set_ref(new, made)
    assert gc(store).recoveries == ()
    store.set_ref(new, origin)  # another model takes the name
    assert gc(store).recoveries == (f"recovery/{path.name}",)
    with store.lock("recover"):
        claim(store, Owner(f"{PYTHON}-later", "own text", (), 0, PYTHON, origin))
    add_model(store, PYTHON, b"extracted again")
    assert len(gc(store).recoveries) == 1


def test_a_state_without_an_owner_is_garbage(store: Store) -> None:
    add_model(store, PYTHON, b"own")
    path = state_path(store.workspace, PYTHON)
    path.mkdir(parents=True)
    for content in (b"", b"[]", b'{"name": 1}'):
        path.mkdir(exist_ok=True)
        (path / "owner.json").write_bytes(content)
        assert owner_of(path) is None
        assert gc(store).recoveries == (f"recovery/{path.name}",)


def test_two_names_of_one_model_share_all(store: Store) -> None:
    digest = add_model(store, PYTHON, b"own")
    store.set_ref(f"{PYTHON}-copy", digest)
    assert sizes_of(store, PYTHON).own == 0
    report = remove(store, PYTHON)
    assert report.freed == 0
    assert report.shared_with == (f"{PYTHON}-copy",)
    assert verify(store, []) == []
    assert store.model(f"{PYTHON}-copy").name == PYTHON


def test_a_base_goes_and_its_models_stay(store: Store) -> None:
    base = add_base(store, bytes(2000))
    add_model(store, PYTHON, b"own", base=base)
    report = remove(store, BASE)
    assert report.freed == 2000
    assert blobs_of(store) == digests(b"own", b"shared", b"tokenizer")
    assert store.manifest(base) == base_manifest(bytes(2000))  # licence and provenance
    assert gc(store).freed == 0
    assert add_base(store, bytes(2000)) == base  # and it can come back
    remove(store, BASE)
    remove(store, PYTHON)
    assert files_below(store.workspace.blobs, store.workspace.manifests) == set()


def test_a_base_that_stays_keeps_its_weights(store: Store) -> None:
    base = add_base(store, b"weights")
    add_model(store, PYTHON, b"own", base=base)
    remove(store, PYTHON)
    gc(store)
    assert blobs_of(store) == digests(b"weights")
    assert list(store.names()) == [BASE]


def test_files_outside_are_never_touched(store: Store, tmp_path: Path) -> None:
    outside = tmp_path / "mine.gguf"
    outside.write_bytes(b"weights")
    store.set_ref(BASE, store.put_manifest(base_manifest(b"weights", local=outside)))
    sizes = sizes_of(store, BASE)
    assert (sizes.own, sizes.outside, sizes.missing) == (0, 7, 0)
    remove(store, BASE)
    gc(store)
    assert outside.read_bytes() == b"weights"


def test_collecting_what_nobody_needs(store: Store) -> None:
    add_model(store, PYTHON, b"old")
    add_model(store, PYTHON, b"new")  # moves the name
    store.blobs.put(b"stray")
    partial = store.partial("a download")
    partial.write_bytes(bytes(100))
    folder = store.partial("an extraction")
    folder.mkdir()
    (folder / "block.bin").write_bytes(bytes(50))
    foreseen = gc(store, dry_run=True)
    assert foreseen.dry_run
    assert set(foreseen.blobs) == {f"blobs/{d}" for d in digests(b"old", b"stray")}
    assert len(foreseen.manifests) == 2  # with its sidecar
    assert len(foreseen.partials) == 2
    assert foreseen.freed > 100 + 50 + 3 + 5
    assert digests(b"old", b"stray") <= blobs_of(store)
    assert partial.exists()

    done = gc(store)
    assert not done.dry_run
    assert (done.freed, done.blobs, done.manifests, done.partials, done.spared) == (
        foreseen.freed,
        foreseen.blobs,
        foreseen.manifests,
        foreseen.partials,
        (),
    )
    assert blobs_of(store) == digests(b"new", b"shared", b"tokenizer")
    assert files_below(store.workspace.partials) == set()
    assert gc(store).freed == 0


def test_collection_spares_a_live_writer_of_this_process(store: Store) -> None:
    other = Store(store.root)
    old = store.blobs.put(b"there before")
    with store.writing():
        new = store.blobs.put(b"new")
        assert store.blobs.hold(old)
        manifest = store.put_manifest(
            model_manifest(PYTHON, b"own", b"shared", b"tokenizer", sha256_of(b""))
        )
        inside = store.partial("work")
        inside.write_bytes(b"x")
        inside.with_suffix(".part").write_bytes(b"x")
        report = gc(other)
        assert report.freed == 0
        assert set(report.spared) == {
            f"blobs/{old}",
            f"blobs/{new}",
            f"manifests/{manifest}.json",
        }
        assert inside.with_suffix(".part").exists()
    assert len(gc(other).blobs) == 2
    assert not inside.exists()


def test_removal_spares_a_live_writer(store: Store) -> None:
    add_model(store, PYTHON, b"own")
    with store.writing():
        assert store.blobs.hold(sha256_of(b"shared"))
        assert remove(Store(store.root), PYTHON).freed > 0
        assert blobs_of(store) == digests(b"shared")
    gc(store)
    assert blobs_of(store) == set()


def test_what_a_pinned_manifest_needs_is_pinned(store: Store) -> None:
    digest = add_model(store, PYTHON, b"own")
    with store.writing():
        store.put_manifest(store.manifest(digest))
        remove(Store(store.root), PYTHON)
        assert blobs_of(store) == digests(b"own", b"shared", b"tokenizer")
        store.set_ref(PYTHON, digest)
    gc(store)
    assert store.model(PYTHON).name == PYTHON
    assert blobs_of(store) == digests(b"own", b"shared", b"tokenizer")


def test_a_partial_asked_for_before_the_lock_is_spared_under_it(store: Store) -> None:
    path = store.partial("work")
    with store.lock("work"):
        path.write_bytes(b"x")
        gc(Store(store.root))
        assert path.exists()
    gc(Store(store.root))
    assert not path.exists()


def test_partial_paths_are_stable_different_and_inside(store: Store) -> None:
    keys = ["a", "A", "a:b", "a-b", "../../x", "/etc/passwd", "", "\0", "é", "x" * 500, "a.b"]
    paths = [store.partial(key) for key in keys]
    assert len(set(paths)) == len(keys)
    assert all(path.parent == store.workspace.partials for path in paths)
    assert [Store(store.root).partial(key) for key in keys] == paths


def test_nothing_is_collected_beside_a_damaged_manifest(store: Store) -> None:
    digest = add_model(store, PYTHON, b"own")
    add_model(store, JAVA, b"java", shared=b"other")
    store.blobs.put(b"stray")
    path = store.manifest_path(digest)
    path.chmod(0o644)
    path.write_bytes(b"{}")
    before = blobs_of(store)
    with pytest.raises(StoreError, match=f"manifest of {PYTHON} is damaged"):
        gc(store)
    remove(store, JAVA)  # the name goes; its blobs might be the damaged one's too
    assert blobs_of(store) == before
    assert all_sizes(store)[PYTHON].damaged
    remove(store, PYTHON)
    gc(store)
    assert files_below(store.workspace.blobs, store.workspace.manifests) == set()


def test_a_missing_blob_is_told_in_the_sizes(store: Store) -> None:
    add_model(store, PYTHON, b"own")
    store.blobs.path(sha256_of(b"own")).unlink()
    sizes = sizes_of(store, PYTHON)
    assert (sizes.missing, sizes.own) == (1, len(b"sharedtokenizer"))


LANGUAGES = ("python", "java", "cpp")
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from(LANGUAGES), st.integers(0, 3)),
        st.tuples(st.just("remove"), st.sampled_from(LANGUAGES), st.just(0)),
        st.tuples(st.just("base"), st.just(""), st.integers(0, 1)),
        st.tuples(st.just("remove base"), st.just(""), st.just(0)),
        st.tuples(st.just("stray"), st.just(""), st.integers(0, 3)),
        st.tuples(st.just("gc"), st.just(""), st.just(0)),
    ),
    max_size=12,
)


@settings(max_examples=15, deadline=None)
@given(ACTIONS)
def test_any_sequence_keeps_what_is_named_and_gc_nothing_else(
    actions: list[tuple[str, str, int]],
) -> None:
    named: dict[str, set[str]] = {}
    with tempfile.TemporaryDirectory() as root:
        for action, language, number in [*actions, ("gc", "", 0)]:
            store = Store(Path(root))
            name = f"{BASE}-{language}" if language else BASE
            if action == "add":
                # Models of one number share; own blobs of two languages may be equal.
                contents = (b"own%d" % number, b"shared%d" % (number % 2), b"tokenizer")
                add_model(store, name, *contents)
                named[name] = digests(*contents)
            elif action == "base":
                add_base(store, b"weights%d" % number)
                named[BASE] = digests(b"weights%d" % number)
            elif action.startswith("remove") and name in named:
                foretold = sizes_of(store, name).own
                assert remove(store, name).freed >= foretold
                del named[name]
            elif action == "stray":
                store.blobs.put(b"own%d" % number)
            needed = set().union(*named.values())
            if action == "gc":
                gc(store)
                assert blobs_of(store) == needed
            assert set(store.names()) == set(named)
            assert needed <= blobs_of(store)
