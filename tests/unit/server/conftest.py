"""One server for the tests that change nothing of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from server.tiny import Live, live, shelf


@pytest.fixture(scope="session")
def shared() -> Iterator[Live]:
    with live(shelf()) as running:
        yield running
