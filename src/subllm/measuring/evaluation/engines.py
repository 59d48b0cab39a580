"""Engines for measuring: opened when needed, used again, one at a time."""

from __future__ import annotations

from typing import Protocol

from subllm.engine.choice import choose_backend
from subllm.engine.computing import Computing
from subllm.engine.limits import EngineLimits
from subllm.engine.loader import load_engine
from subllm.engine.request import Engine
from subllm.models.store.store import Store


class EngineSource(Protocol):
    """Whoever opens engines for a bench."""

    def __call__(self, model: str, together: int, longest: int) -> Engine:
        """An idle engine for so many requests at once, of so many tokens at most, closed by
        whoever made this. Raises as `load_engine`."""

    def tools(self) -> dict[str, str]:
        """What decides, beside the model, what an engine writes."""

    def close(self) -> None: ...


_ROOM = 64  # tokens; memory is given out in blocks


class Engines:
    """One engine at a time.

    It is kept until another model, or more room, is asked for.
    """

    def __init__(self, store: Store, computing: Computing = Computing()) -> None:
        self._store = store
        self._computing = computing
        self._engine: Engine | None = None
        self._for: tuple[str, int, int] | None = None

    def tools(self) -> dict[str, str]:
        backend = choose_backend(self._computing.backend, self._computing.device)
        return {"backend": backend, "keys and values": self._computing.kv_type}

    def __call__(self, model: str, together: int, longest: int) -> Engine:
        digest = self._store.resolve(model)
        if self._engine is not None and self._for is not None:
            name, had_together, had_longest = self._for
            if name == digest and together <= had_together and longest <= had_longest:
                return self._engine
            self.close()
        self._engine = load_engine(
            self._store,
            model,
            computing=self._computing,
            limits=EngineLimits(max_batch=together, kv_tokens=together * (longest + _ROOM)),
            context_length=longest,
        )
        self._for = (digest, together, longest)
        return self._engine

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
        self._engine = self._for = None
