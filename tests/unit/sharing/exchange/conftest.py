"""A store of models that can be asked, one that is empty, and places between them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fakes.hub import GOOD_TOKEN, FakeHub
from huggingface_hub import constants

from subllm.models.store.store import Store
from unit.cli import tiny_store


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that is not to be changed."""
    return tiny_store.made_in(tmp_path_factory.mktemp("made"))


@pytest.fixture
def giver(made: Path, tmp_path: Path) -> Store:
    home = tmp_path / "giver"
    shutil.copytree(made, home)
    return Store(home)


@pytest.fixture
def taker(tmp_path: Path) -> Store:
    return Store(tmp_path / "taker")


@pytest.fixture
def hub(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """The hub that pushes go to, by the LFS interface, with a token that may write."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.partition("/{repo_id}")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "".join(template[1:]))
    monkeypatch.setenv("HF_TOKEN", GOOD_TOKEN)
    return hub
