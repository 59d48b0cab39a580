"""A place where programs that nobody has read can run and do no harm."""

from subllm.measuring.evaluation.sandbox.limits import Limits, Outcome
from subllm.measuring.evaluation.sandbox.sandbox import Sandbox, Session

__all__ = ["Limits", "Outcome", "Sandbox", "Session"]
