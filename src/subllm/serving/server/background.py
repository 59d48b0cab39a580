"""Loads a model on a thread of its own, so that the engine thread goes on with the others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from subllm.errors import BackendError
from subllm.serving.server.jobs import ModelRef
from subllm.serving.server.pool import Slot

if TYPE_CHECKING:
    from subllm.engine.draft import Draft
    from subllm.engine.request import Engine


class Load:
    """One model on its way. It is loaded to the end, whoever has left meanwhile.

    slot  the engine that it is to draft for; None: it is loaded to answer
    """

    def __init__(
        self,
        ref: ModelRef,
        load: Callable[[ModelRef], Engine | Draft],
        done: Callable[[], None],
        slot: Slot | None = None,
    ) -> None:
        """`done` is called on the loading thread once `over`."""
        self.ref = ref
        self.slot = slot
        self._load = load
        self._done = done
        self._loaded: Engine | Draft | None = None
        self._error: BaseException | None = None
        self._over = threading.Event()
        threading.Thread(target=self._run, name="subllm-load", daemon=True).start()

    @property
    def over(self) -> bool:
        return self._over.is_set()

    def take(self) -> Engine | Draft:
        """What was loaded, once it is; it is the caller's then. Raises what loading raised."""
        self._over.wait()
        if self._error is not None:
            raise self._error
        if self._loaded is None:
            raise BackendError(f"{self.ref.name} was loaded and taken already")
        loaded, self._loaded = self._loaded, None
        return loaded

    def drop(self) -> None:
        """Frees what was loaded, once it is."""
        self._over.wait()
        loaded: Any = self._loaded
        self._loaded = None
        if loaded is not None:
            (loaded if self.slot is None else loaded.backend).close()

    def _run(self) -> None:
        try:
            self._loaded = self._load(self.ref)
        except BaseException as error:
            self._error = error
        finally:
            self._over.set()
            self._done()
