"""Processes that die before any file operation: all is whole, and the same command goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from subllm.models.acquire.share.index import INDEX
from subllm.models.store.collect import gc
from subllm.models.store.store import Store
from subllm.models.store.verify import verify
from unit.models.store.samples import killed_at

from .samples import PYTHON, give, take


@pytest.mark.long
def test_a_pull_that_dies(giver: Store, tmp_path: Path) -> None:
    where = str(tmp_path / "place")
    give(giver, where)
    take(Store(tmp_path / "first"), where)  # what is imported late is
    step = 0
    while True:
        home = tmp_path / f"taker-{step}"
        if not killed_at(step, lambda home=home: take(Store(home), where) and None):  # type: ignore[misc]
            break
        store = Store(home)
        assert store.names().keys() <= {PYTHON}
        assert not any(result.problems for result in verify(store))
        gc(store)
        take(store, where)
        assert not any(result.problems for result in verify(store))
        assert store.names().keys() == {PYTHON}
        step += 1
    assert step > 32


def test_a_push_that_dies(giver: Store, taker: Store, tmp_path: Path) -> None:
    give(giver, str(tmp_path / "first"))
    step = 0
    while True:
        place = tmp_path / f"place-{step}"
        if not killed_at(step, lambda place=place: give(giver, str(place)) and None):  # type: ignore[misc]
            break
        if (place / INDEX).exists():
            take(taker, str(place))
        give(giver, str(place))
        take(taker, str(place))
        names = {path.name for path in place.rglob("*") if path.is_file()}
        assert not any(name.endswith(".partial") for name in names)
        step += 1
    assert step > 16  # Python 3.13 counts fewer operations than 3.11
