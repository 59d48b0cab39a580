"""A place where programs that nobody has read can run and do no harm."""

from subllm.evaluation.sandbox.limits import Limits, Outcome
from subllm.evaluation.sandbox.sandbox import Sandbox, Session

__all__ = ["Limits", "Outcome", "Sandbox", "Session"]
