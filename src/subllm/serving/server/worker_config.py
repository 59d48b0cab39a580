"""What an engine worker is made with."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from subllm.engine.request import Engine
from subllm.serving.server.footprint import NOTHING, Footprint
from subllm.serving.server.jobs import ModelRef

if TYPE_CHECKING:
    from subllm.engine.draft import Draft


@dataclass(frozen=True)
class Loading:
    """How models come and go.

    engine   makes the engine of a model, on a thread of its own
    draft    opens a model that drafts for another, on a thread of its own; None: no model does
    measure  tells what a model will take before it is loaded
    let_go   is called on the engine thread once the last model is unloaded
    """

    engine: Callable[[ModelRef], Engine]
    draft: Callable[[ModelRef], Draft] | None = None
    measure: Callable[[ModelRef], Footprint] = lambda ref: NOTHING
    let_go: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Bounds:
    """How much is loaded, waits and runs at once.

    engines      that are loaded
    memory       bytes that everything loaded may take; see `EnginePool`
    jobs         that run and wait
    step_tokens  allowance of every step of an engine
    keep_alive   seconds that a model stays loaded which nobody uses, where no job says
    """

    engines: int = 4
    memory: int | None = None
    jobs: int = 256
    step_tokens: int | None = None
    keep_alive: float = math.inf
