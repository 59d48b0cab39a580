"""Servers: one for the tests that change nothing of it, one of its own for each of the others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from unit.serving.server.connections import COMPLETIONS
from unit.serving.server.tiny import PATIENCE, PYTHON, Live, live, shelf


@pytest.fixture(scope="session")
def shared() -> Iterator[Live]:
    with live(shelf()) as running:
        yield running


@pytest.fixture
def slow() -> Iterator[Live]:
    """One engine of each model, loaded, where a step takes 20 ms and one request runs."""
    with _slowed(keep_alive_seconds=0.1) as running:
        yield running


@pytest.fixture
def patient() -> Iterator[Live]:
    """The same, but a stream begins with its first token alone, however long that takes."""
    with _slowed(keep_alive_seconds=PATIENCE) as running:
        yield running


@contextlib.contextmanager
def _slowed(**config: Any) -> Iterator[Live]:
    with live(shelf(max_batch=1, keep_prefixes=0), **config) as running:
        running.post(COMPLETIONS, model=PYTHON, prompt="x", max_tokens=1)
        engine = running.shelf.engine(PYTHON)
        engine.delay = 0.02
        engine.requests.clear()
        engine.steps = 0
        yield running
