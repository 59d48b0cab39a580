"""Tensors of these tests are made on a GPU where there is one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from oracles.packed_matrices import DEVICE


@pytest.fixture(autouse=True)
def _on_the_device() -> Iterator[None]:
    torch.set_default_device(DEVICE)
    yield
    torch.set_default_device("cpu")
