"""A small store and a way to run commands in process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from subllm.cli import app
from subllm.store.store import Store

from .samples import Ran, fill


@pytest.fixture
def subllm(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    def run(*arguments: str) -> Ran:
        status = app.run(list(arguments))
        captured = capsys.readouterr()
        return Ran(status, captured.out, captured.err)

    return run


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """The store that commands see; see `fill`."""
    return fill(tmp_path / "subllm-home")
