"""Tokenizers of stored models: one in a process for all that share it."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from unit.store.samples import BASE, add_model, tokenizer_bundle

from subllm.store.store import Store
from subllm.store.tokenizers import open_tokenizer
from subllm.text.tokenizer import Tokenizer

PYTHON = f"{BASE}-python"
JAVA = f"{BASE}-java"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    for name in (PYTHON, JAVA):
        add_model(store, name, name.encode(), tokenizer=tokenizer_bundle())
    return store


def test_models_share_one_while_someone_holds_it(store: Store) -> None:
    with ThreadPoolExecutor(4) as pool:
        models = [store.model(name) for name in (PYTHON, JAVA)] * 4
        opened = list(pool.map(lambda model: open_tokenizer(store, model), models))
    assert len(set(map(id, opened))) == 1
    assert open_tokenizer(Store(store.root), store.model(JAVA)) is opened[0]
    assert isinstance(opened[0], Tokenizer)
    gone = weakref.ref(opened.pop())
    opened.clear()
    gc.collect()
    assert gone() is None
