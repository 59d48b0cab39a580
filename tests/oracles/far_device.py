"""A device beside the processor, for machines that have none: what lies on it is told apart from
what does not, and computed by the processor.

torch knows the name of the device ("lazy") and has nothing behind it. Operations on tensors of
both kinds fail, as they do with a GPU, and so does reading one of its tensors without copying it
over; what comes out is what the processor computes, bit for bit. It says how many bytes lay there
at most. It has no speed, no streams and no kernels of its own.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

FAR = torch.device("lazy")
_CPU = torch.device("cpu")
# Of two devices by nature.
_COPIES = {
    torch.ops.aten.copy_.default,
    torch.ops.aten._to_copy.default,
    torch.ops.aten.to.device,  # what inference mode leaves of it
}


class FarTensor(torch.Tensor):
    """`near` holds the values."""

    near: torch.Tensor

    @staticmethod
    def __new__(cls, near: torch.Tensor) -> FarTensor:
        found = torch.Tensor._make_wrapper_subclass(
            cls, near.size(), strides=near.stride(), storage_offset=near.storage_offset(),
            dtype=near.dtype, layout=near.layout, device=FAR,
        )  # fmt: skip
        found.near = near
        return found

    def __repr__(self) -> str:  # type: ignore[override]
        return f"far {self.near!r}"

    def tolist(self) -> Any:
        return self.near.tolist()  # type: ignore[no-untyped-call]

    @property
    def data(self) -> torch.Tensor:  # type: ignore[override]
        return self.detach()

    @data.setter
    def data(self, other: FarTensor) -> None:
        assert self.shape == other.shape and self.dtype == other.dtype
        self.near = other.near

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} on a far tensor outside of `far_device`")


class FarDevice(TorchDispatchMode):
    """peak: bytes that lay there at once, since it was last set to 0."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self.now = 0
        self._held: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known: dict[int, FarTensor] = {}
        near: list[torch.Tensor] = []
        asked: list[bool] = []  # for a device by name: whether it was this one

        def opened(value: Any) -> Any:
            if isinstance(value, torch.device):
                asked.append(value.type == FAR.type)
                return _CPU if asked[-1] else value
            if isinstance(value, FarTensor):
                known[id(value.near)] = value
                return value.near
            if isinstance(value, torch.Tensor) and value.ndim:  # a number goes with either
                near.append(value)
            return value

        args, kwargs = tree_map(opened, args), tree_map(opened, kwargs or {})
        far = bool(known)
        if far and near and func not in _COPIES:
            raise RuntimeError(f"{func} of tensors on {FAR} and on the processor")
        if asked:
            far = asked[-1]
        out = func(*args, **kwargs)
        if func is torch.ops.aten._local_scalar_dense.default:
            return out

        def closed(value: Any) -> Any:
            if id(value) in known:  # what an operation in place gives back
                return known[id(value)]
            if not isinstance(value, torch.Tensor) or not far or value.device != _CPU:
                return value
            return self._wrapped(value)

        return tree_map(closed, out)

    def _wrapped(self, near: torch.Tensor) -> FarTensor:
        storage = near.untyped_storage()
        key = storage.data_ptr()
        if key not in self._held and storage.nbytes():
            self._held.add(key)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._freed, key, storage.nbytes())
        return FarTensor(near)

    def _freed(self, key: int, nbytes: int) -> None:
        self._held.discard(key)
        self.now -= nbytes


@contextmanager
def far_device() -> Iterator[FarDevice]:
    """`FAR` can be computed on meanwhile, on this thread."""
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor` makes them here and sends them
    setattr(torch, FAR.type, SimpleNamespace())  # as torch.cuda: asked what it can do
    try:
        with FarDevice() as device:
            yield device
    finally:
        torch._C._set_only_lift_cpu_tensors(before)
        delattr(torch, FAR.type)
