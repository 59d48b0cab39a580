"""A place where programs that nobody has read can run and do no harm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from subllm.measuring.evaluation.sandbox.limits import Limits, Outcome

if TYPE_CHECKING:
    from subllm.measuring.evaluation.sandbox.sandbox import Sandbox, Session

__all__ = ["Limits", "Outcome", "Sandbox", "Session"]


def __getattr__(name: str) -> Any:
    """The harness's side is imported by who uses it: the launcher is forked for each run."""
    if name in ("Sandbox", "Session"):
        from subllm.measuring.evaluation.sandbox import sandbox

        return getattr(sandbox, name)
    raise AttributeError(name)
