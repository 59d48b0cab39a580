"""Recoveries of tiny random models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles.tiny_models import oracle

from subllm.making.recovery.recipe import Recipe
from subllm.making.recovery.rows import RecoveryText, pack_rows
from subllm.making.recovery.task import Task
from subllm.models.weights.open import open_weights
from subllm.models.weights.reader import WeightReader
from subllm.progress import NullProgress

END = 0
LENGTH = 24
RECIPE = Recipe(lr=3e-3, length=LENGTH, sequences=3, top_k=0)


class Notes(NullProgress):
    """Keeps the notes, and which tasks were started."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.started: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    def start(self, key: str, title: str, total: float | None, unit: str) -> None:
        self.started.append(key)


def text(rows: int, seed: int = 0) -> RecoveryText:
    """Documents of 5 to 30 tokens in every row."""
    random = np.random.default_rng(seed)
    documents = []
    while sum(map(len, documents)) < 2 * (rows + 2) * LENGTH:
        documents.append([*random.integers(1, 200, random.integers(5, 30)).tolist(), END])
    packed = pack_rows(documents, LENGTH, end=END)
    return RecoveryText(packed.tokens[:rows], packed.starts[:rows], packed.learned[:rows])


def masks_of(reader: WeightReader, density: float = 0.5) -> dict[str, np.ndarray]:
    random = np.random.default_rng(5)
    return {
        f"{reader.spec.block_prefix(layer)}{linear.name}.weight": (
            random.random((linear.out_features, linear.in_features)) < density
        )
        for layer in range(reader.spec.num_layers)
        for linear in reader.spec.linears
    }


@pytest.fixture
def base(tmp_path: Path) -> Callable[..., WeightReader]:
    """The tiny model of a family on disk, opened."""

    def make(family: str = "qwen2") -> WeightReader:
        directory = tmp_path / family
        if not directory.exists():
            model = oracle(family)
            model.save_pretrained(directory)
        return open_weights(directory)

    return make


@pytest.fixture
def task(base) -> Callable[..., Task]:
    def make(family: str = "qwen2", rows: int = 12, **recipe: object) -> Task:
        reader = base(family)
        return Task(
            reader, "sha256-base", masks_of(reader, 0.8), reader.read, text(rows), text(4, 9),
            replace(RECIPE, **recipe),
        )  # fmt: skip

    return make


@pytest.fixture(autouse=True)
def one_thread():
    """Sums of several threads are no less exact, but tiny models are slower with them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
