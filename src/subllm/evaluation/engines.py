"""Engines for measuring: opened when needed, used again, one at a time."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from subllm.runtime.loader import BackendName, KvTypeName, choose_backend, load_engine
from subllm.runtime.request import Engine
from subllm.store.store import Store

OpenEngine = Callable[[str, int, int], Engine]
"""(model, requests at once, longest sequence in tokens) -> an idle engine, closed by whoever
made this."""

_ROOM = 64  # tokens; memory is given out in blocks


class Engines:
    """Implements `OpenEngine`; a context manager that closes what it opened.

    An engine is kept until another model, or more room, is asked for.
    """

    def __init__(
        self,
        store: Store,
        *,
        backend: BackendName = "auto",
        device: str = "auto",
        threads: int | None = None,
        kv_type: KvTypeName = "bfloat16",
    ) -> None:
        self._store = store
        self._backend: BackendName = backend
        self._device = device
        self._threads = threads
        self._kv_type: KvTypeName = kv_type
        self._engine: Engine | None = None
        self._for: tuple[str, int, int] | None = None

    def tools(self) -> tuple[tuple[str, str], ...]:
        """What decides, beside the model, what an engine writes."""
        backend = choose_backend(self._backend, self._device)
        return ("backend", backend), ("keys and values", self._kv_type)

    def __call__(self, model: str, together: int, longest: int) -> Engine:
        """Raises as `load_engine`."""
        digest = self._store.resolve(model)
        if self._engine is not None and self._for is not None:
            name, had_together, had_longest = self._for
            if name == digest and together <= had_together and longest <= had_longest:
                return self._engine
            self.close()
        self._engine = load_engine(
            self._store,
            model,
            backend=self._backend,
            device=self._device,
            threads=self._threads,
            context_length=longest,
            max_batch=together,
            kv_tokens=together * (longest + _ROOM),
            kv_type=self._kv_type,
        )
        self._for = (digest, together, longest)
        return self._engine

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
        self._engine = self._for = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
