"""Tokenizers of stored models: one in a process, mapped from a file that may vanish."""

from __future__ import annotations

import gc
import json
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from subllm.errors import CorruptError, StoreError
from subllm.models.store import collect
from subllm.models.store.sizes import sizes_of
from subllm.models.store.store import Store
from subllm.models.store.tokenizers import open_tokenizer
from subllm.models.store.verify import verify
from subllm.models.text.coder import LibraryCoder
from subllm.models.text.table_coder import TableCoder
from subllm.models.text.tokenizer import Tokenizer
from unit.models.store.samples import BASE, add_model, killed_at, tokenizer_bundle

PYTHON = f"{BASE}-python"
JAVA = f"{BASE}-java"
TEXT = "def f(x):\n    return x  # caf\u00e9 <|end|>"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    for name in (PYTHON, JAVA):
        add_model(store, name, name.encode(), tokenizer=tokenizer_bundle())
    return store


def opened(store: Store, name: str = PYTHON) -> Tokenizer:
    """Anew: nobody holds an earlier one."""
    gc.collect()
    return open_tokenizer(store, store.model(name))


def digest_of(store: Store) -> str:
    return store.model(PYTHON).blobs.tokenizer


def compact(store: Store) -> Path:
    return store.workspace.compact_tokenizer(digest_of(store))


def test_models_share_one_while_someone_holds_it(store: Store) -> None:
    with ThreadPoolExecutor(4) as pool:
        models = [store.model(name) for name in (PYTHON, JAVA)] * 4
        found = list(pool.map(lambda model: open_tokenizer(store, model), models))
    assert len(set(map(id, found))) == 1
    assert open_tokenizer(Store(store.root), store.model(JAVA)) is found[0]
    gone = weakref.ref(found.pop())
    found.clear()
    gc.collect()
    assert gone() is None


def test_the_second_opening_reads_no_bundle(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened(store)
    assert isinstance(first.coder, LibraryCoder)
    ids, bundle = first.encode(TEXT), first.to_bundle()
    facts = first.facts
    del first
    with monkeypatch.context() as patch:
        patch.setattr(Tokenizer, "from_bundle", lambda bundle: pytest.fail("read again"))
        second = opened(store, JAVA)
        assert isinstance(second.coder, TableCoder)
        assert second.encode(TEXT) == ids and second.facts == facts
        assert second.decode(ids) == TEXT
    assert second.to_bundle() == bundle == tokenizer_bundle()


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "another's", "gone"])
def test_a_compact_file_that_is_not_whole_is_made_again(store: Store, damage: str) -> None:
    ids = opened(store).encode(TEXT)
    path = compact(store)
    whole = path.read_bytes()
    if damage == "flip":
        path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    elif damage == "another's":
        bundle = json.loads(tokenizer_bundle())
        bundle["facts"]["chat_template"] = "other"
        add_model(store, f"{BASE}-cpp", b"cpp", tokenizer=json.dumps(bundle).encode())
        opened(store, f"{BASE}-cpp")
        other = store.model(f"{BASE}-cpp").blobs.tokenizer
        path.write_bytes(store.workspace.compact_tokenizer(other).read_bytes())
    elif damage == "gone":
        path.unlink()
    else:
        path.write_bytes(whole[:100] if damage == "cut" else b"")
    again = opened(store)
    assert isinstance(again.coder, LibraryCoder)
    assert again.encode(TEXT) == ids and again.chat_template is None
    assert path.read_bytes() == whole
    del again
    assert isinstance(opened(store).coder, TableCoder)


def test_a_vocabulary_without_tables_is_read_by_the_library(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = json.loads(tokenizer_bundle())
    definition = json.loads(bundle["tokenizer"])
    definition["model"]["ignore_merges"] = True
    bundle["tokenizer"] = json.dumps(definition)
    add_model(store, f"{BASE}-cpp", b"cpp", tokenizer=json.dumps(bundle).encode())
    ids = opened(store, f"{BASE}-cpp").encode(TEXT)
    # That there are none is known from then on.
    monkeypatch.setattr(
        "subllm.models.store.tokenizers.tables_of", lambda coder: pytest.fail("again")
    )
    second = opened(store, f"{BASE}-cpp")
    assert isinstance(second.coder, LibraryCoder) and second.encode(TEXT) == ids


def test_tables_that_do_not_agree_are_not_used(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subllm.models.store.tokenizers.agree", lambda *_: False)
    opened(store)
    assert isinstance(opened(store).coder, LibraryCoder)


def test_damage_of_the_blob(store: Store) -> None:
    """A compact file was made from whole bytes, so it goes on; a missing blob is told."""
    path = store.blobs.path(digest_of(store))
    ids = opened(store).encode(TEXT)
    whole = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(whole[:-1] + b"?")
    assert opened(store).encode(TEXT) == ids
    assert not all(result.ok for result in verify(store))
    compact(store).unlink()
    with pytest.raises(CorruptError):
        opened(store)
    path.unlink()
    with pytest.raises(StoreError, match="missing"):
        opened(store)


def test_a_place_that_cannot_be_written_to_costs_only_time(store: Store) -> None:
    store.workspace.cache.write_bytes(b"a file where the directory belongs")
    for _ in range(2):
        tokenizer = opened(store)
        assert isinstance(tokenizer.coder, LibraryCoder)
        assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
        del tokenizer
    assert not list(store.workspace.partials.iterdir())


@pytest.mark.long
def test_killed_anywhere_while_it_is_made(store: Store) -> None:
    """The next one has it whole, and nothing is left that `gc` does not take."""
    step = 0
    while killed_at(step, lambda: [opened(store), None][1]):
        step += 1
        assert opened(store).decode(opened(store).encode(TEXT)) == TEXT
        compact(store).unlink()
        collect.gc(store)
        assert not list(store.workspace.partials.iterdir())
    assert step > 3


def test_it_goes_with_the_last_model_that_needs_it(store: Store) -> None:
    opened(store)
    path = compact(store)
    size = path.stat().st_size
    collect.remove(store, PYTHON)
    assert collect.gc(store).caches == () and path.exists()
    own = sizes_of(store, JAVA).own
    assert collect.remove(store, JAVA).freed >= own + size
    assert not path.exists()


def test_gc_takes_what_no_blob_stands_behind(store: Store) -> None:
    opened(store)
    stray = store.workspace.compact_tokenizer(f"sha256-{'0' * 64}")
    stray.write_bytes(bytes(1000))
    foretold = collect.gc(store, dry_run=True)
    assert foretold.caches == (f"cache/{stray.name}",) and foretold.freed >= 1000
    assert stray.exists()
    assert collect.gc(store).caches == foretold.caches
    assert not stray.exists() and compact(store).exists()
