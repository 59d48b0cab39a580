"""Which backends there are, where they compute and what they want. Importing this imports none
of them: each is a package with a function `load_backend`, as `LoadBackend` describes it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from types import MappingProxyType
from typing import Literal, Protocol

from subllm.engine.backend import Backend
from subllm.engine.placement import Placement
from subllm.engine.weights import LoadableWeights
from subllm.errors import BackendError

BackendName = Literal["auto", "native", "cuda", "torch"]
KvTypeName = Literal["bfloat16", "int8"]
DTypeName = Literal["bfloat16", "float32"]


class LoadBackend(Protocol):
    """Raises WeightsError for weights that do not fit, DeviceError for a device that is missing
    or too small, BackendError where a package is missing."""

    def __call__(
        self,
        source: LoadableWeights,
        *,
        placement: Placement,
        threads: int | None,
        kv_type: KvTypeName,
        dtype: DTypeName,
        screened_head: bool,
    ) -> Backend: ...


@dataclass(frozen=True)
class BackendEntry:
    """One backend.

    module    where it lives
    devices   kinds of devices ("cpu", "cuda", ...) that it computes on; None: it decides itself
    kv_types  types of keys and values that it keeps
    package   what pip calls the optional package that it imports; None: nothing is wanted
    """

    module: str
    devices: frozenset[str] | None
    kv_types: frozenset[KvTypeName]
    package: str | None = None

    def computes_on(self, kind: str) -> bool:
        return self.devices is None or kind in self.devices


BACKENDS: Mapping[BackendName, BackendEntry] = MappingProxyType(
    {  # "auto" takes the first that computes on the device
        "native": BackendEntry(
            module="subllm.engine.backends.native",
            devices=frozenset({"cpu"}),
            kv_types=frozenset({"bfloat16", "int8"}),
        ),
        "cuda": BackendEntry(
            module="subllm.engine.backends.cuda",
            devices=frozenset({"cpu", "cuda"}),
            kv_types=frozenset({"bfloat16"}),
            package="triton",
        ),
        "torch": BackendEntry(
            module="subllm.engine.backends.torch",
            devices=None,
            kv_types=frozenset({"bfloat16"}),
            package="torch",
        ),
    }
)


def backend_for(device: str) -> BackendName:
    """The first that computes on `device` ("cpu", "cuda", "cuda:N"), where the packages that it
    wants are there."""
    kind = device.partition(":")[0]
    return next(name for name, entry in BACKENDS.items() if entry.computes_on(kind) and _has(entry))


def _has(entry: BackendEntry) -> bool:
    return entry.package in (None, "torch") or find_spec(entry.package) is not None


def check_device(name: BackendName, device: str) -> None:
    """Raises BackendError where the backend does not compute on `device`; "auto" is any."""
    entry = BACKENDS[name]
    if device != "auto" and not entry.computes_on(device.partition(":")[0]):
        raise BackendError(
            f"the {name} backend computes on {_listed(entry.devices or ())}, not on {device}; "
            f"use --backend {backend_for(device)}"
        )


def check_kv_type(name: BackendName, kv_type: KvTypeName) -> None:
    """Raises BackendError where the backend does not keep keys and values so."""
    if kv_type not in BACKENDS[name].kv_types:
        others = [other for other, entry in BACKENDS.items() if kv_type in entry.kv_types]
        raise BackendError(
            f"the {name} backend has no {kv_type} KV memory; use --backend {_listed(others)}"
        )


def loader_of(name: BackendName) -> LoadBackend:
    """Imports the backend. Raises BackendError where what it wants is not installed."""
    entry = BACKENDS[name]
    try:
        module = importlib.import_module(entry.module)
    except ImportError as error:
        if entry.package is None:
            raise
        raise BackendError(
            f"{entry.package} cannot be imported ({error}); "
            f"install it with 'pip install {entry.package}'"
        ) from error
    load: LoadBackend = module.load_backend
    return load


def _listed(names: object) -> str:
    assert isinstance(names, (frozenset, list, tuple))
    shown = ["the CPU" if name == "cpu" else str(name) for name in sorted(names)]
    return " or ".join(shown)
