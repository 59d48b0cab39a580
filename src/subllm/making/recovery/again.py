"""A block's forward run again in its backward pass, but for what is dear to compute.

Of a block's inner states most are cheap: norms, rotations, activations and their products. Kept
are its input, the products with its matrices and what attention makes of them; the rest is made
again from those when backward comes to the block (selective checkpointing: Korthikanti et al.,
arXiv 2205.05198). Where memory is short, less is kept and more made again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import IntEnum
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

_aten = torch.ops.aten
_PRODUCTS = {_aten.mm.default: 0, _aten.addmm.default: 1}
"""With the place of what is multiplied."""
_ATTENTION = {
    getattr(_aten, name).default
    for name in (
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
    )
    if hasattr(_aten, name)
}

Run = Callable[[torch.Tensor], torch.Tensor]


class Kept(IntEnum):
    """What is kept of a block for its backward pass: its input, and

    PRODUCTS  products with its matrices, and attention
    NARROW    of these products such as have no more columns than what was multiplied: an MLP's
              first ones are most of the memory, a third of the work
    INPUT     nothing
    """

    PRODUCTS = 0
    NARROW = 1
    INPUT = 2


def again(run: Run, hidden: torch.Tensor, kept: Kept, *, last_is_added: bool) -> torch.Tensor:
    """run(hidden), of which nothing is drawn, so that no state of a generator needs to come back.

    last_is_added  whether the last product is only added to the result, so that no gradient
                   depends on what it is
    """
    contexts: dict[str, Any] = {}
    if kept != Kept.INPUT:
        contexts["context_fn"] = lambda: _contexts(kept == Kept.NARROW, last_is_added)
    out: torch.Tensor = checkpoint(
        run, hidden, use_reentrant=False, preserve_rng_state=False, **contexts
    )
    return out


def _contexts(
    narrow: bool, last_is_added: bool
) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    results: deque[Any] = deque()
    return _Keep(results, narrow, last_is_added), _Take(results)


_AGAIN = object()


class _Keep(TorchDispatchMode):  # type: ignore[no-untyped-call, unused-ignore]
    """Keeps results in the order in which they come."""

    def __init__(self, results: deque[Any], narrow: bool, last_is_added: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self._results, self._narrow, self._last_is_added = results, narrow, last_is_added

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in _PRODUCTS:
            columns = args[_PRODUCTS[func]].shape[-1]
            wide = self._narrow and out.shape[-1] > columns
            self._results.append(_AGAIN if wide else out.detach())
        elif func in _ATTENTION:
            self._results.append(tuple(_detached(each) for each in out))
        return out

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call, unused-ignore]
        if self._last_is_added and self._results and isinstance(self._results[-1], torch.Tensor):
            self._results[-1] = _Shape(self._results[-1])


class _Take(TorchDispatchMode):  # type: ignore[no-untyped-call, unused-ignore]
    """Gives them back in that order."""

    def __init__(self, results: deque[Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self._results = results

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = _AGAIN
        if func in _PRODUCTS or func in _ATTENTION:
            found = self._results.popleft()
        if found is _AGAIN:
            return func(*args, **(kwargs or {}))
        return found.anything() if isinstance(found, _Shape) else found


class _Shape:
    """Of a result whose values nothing asks for."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._shape, self._dtype, self._device = tensor.shape, tensor.dtype, tensor.device

    def anything(self) -> torch.Tensor:
        return torch.empty(self._shape, dtype=self._dtype, device=self._device)


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, torch.Tensor) else value
