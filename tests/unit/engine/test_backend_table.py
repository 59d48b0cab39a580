"""The table of backends: what `auto` takes, what is refused, that settings know them all."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import get_args

import pytest

from subllm.engine.backends import table
from subllm.engine.choice import choose_backend
from subllm.errors import BackendError
from subllm.settings import Settings

ON_CARDS = "cuda" if find_spec("triton") else "torch"


def test_settings_know_every_backend_and_type() -> None:
    fields = Settings.model_fields
    assert get_args(fields["backend"].annotation) == get_args(table.BackendName)
    assert ("auto", *table.BACKENDS) == get_args(table.BackendName)
    assert get_args(fields["kv_type"].annotation) == get_args(table.KvTypeName)
    kept = {kind for entry in table.BACKENDS.values() for kind in entry.kv_types}
    assert kept == set(get_args(table.KvTypeName))


@pytest.mark.parametrize(
    ("backend", "device", "chosen"),
    [
        ("auto", "cpu", "native"),
        ("auto", "cuda", ON_CARDS),
        ("auto", "cuda:1", ON_CARDS),
        ("native", "auto", "native"),
        ("native", "cpu", "native"),
        ("cuda", "cpu", "cuda"),
        ("cuda", "cuda:0", "cuda"),
        ("torch", "cpu", "torch"),
        ("torch", "cuda:0", "torch"),
    ],
)
def test_what_is_chosen(backend: table.BackendName, device: str, chosen: str) -> None:
    assert choose_backend(backend, device) == chosen


def test_what_is_refused_says_what_to_use() -> None:
    with pytest.raises(BackendError) as caught:
        choose_backend("native", "cuda:1")
    assert str(caught.value) == (
        f"the native backend computes on the CPU, not on cuda:1; use --backend {ON_CARDS}"
    )
    with pytest.raises(BackendError) as caught:
        table.check_kv_type("torch", "int8")
    assert str(caught.value) == ("the torch backend has no int8 KV memory; use --backend native")


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("subllm.engine.backends.torch")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BackendError, match="install it with 'pip install torch'"):
        table.loader_of("torch")
    assert table.loader_of("native").__module__ == "subllm.engine.backends.native"
