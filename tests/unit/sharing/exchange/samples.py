"""Places that were changed, and stores that were not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from subllm.errors import SubllmError
from subllm.models.acquire.share.index import INDEX, manifest_path
from subllm.models.store.manifest import ModelManifest, canonical_json, sha256_of
from subllm.models.store.store import Store
from subllm.sharing.exchange.open import open_place, push
from subllm.sharing.exchange.receive import ReceiveReport, receive
from subllm.sharing.exchange.shipment import Sent
from unit.cli.tiny_store import BASE
from unit.models.acquire.samples import Watcher, tree

PYTHON, JAVA, DENSE = f"{BASE}-python", f"{BASE}-java", f"{BASE}-dense"
KINDS = ("directory", "team.subllm", "hub")


def place_of(kind: str, tmp_path: Path) -> str:
    """What `push` and `pull` are told."""
    return "hf:org/coder" if kind == "hub" else str(tmp_path / kind)


def give(store: Store, where: str, *names: str, **options: Any) -> tuple[Sent, Watcher]:
    watcher = Watcher()
    options = {"probe_seconds": 60.0} | options
    return push(names or (PYTHON,), where, store, watcher, **options), watcher


def take(store: Store, where: str, **options: Any) -> tuple[ReceiveReport, Watcher]:
    watcher = Watcher()
    place = open_place(where, probe_seconds=60.0)
    return receive(place, store, watcher, **options), watcher


def refused(store: Store, where: str, kind: type[SubllmError], **options: Any) -> str:
    """The message, one line; the store shows what it showed before."""
    before, names = tree(store.root), store.names()
    with pytest.raises(kind) as caught:
        take(store, where, **options)
    assert type(caught.value) is kind
    assert store.names() == names
    now = tree(store.root)
    assert {name: now[name] for name in before} == before
    assert not {name for name in now if name.startswith("manifests/")} - set(before)
    message = str(caught.value)
    assert "\n" not in message
    assert message.isprintable()
    return message


def change_index(directory: Path, change: Callable[[dict[str, Any]], None]) -> None:
    raw = json.loads((directory / INDEX).read_bytes())
    change(raw)
    (directory / INDEX).write_text(json.dumps(raw))


def change_manifest(directory: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """The manifest of the first model, with a digest that is right again."""

    def edit(index: dict[str, Any]) -> None:
        model = index["models"][0]
        raw = json.loads((directory / manifest_path(model["manifest"])).read_bytes())
        change(raw)
        data = canonical_json(raw)
        model["manifest"], model["manifest_bytes"] = sha256_of(data), len(data)
        (directory / manifest_path(model["manifest"])).write_bytes(data)

    change_index(directory, edit)


def change_model(store: Store, name: str, **update: Any) -> ModelManifest:
    """Let a name of the store refer to a model that differs a little."""
    model = store.model(name).model_copy(update=update)
    store.set_ref(name, store.put_manifest(model))
    return model
