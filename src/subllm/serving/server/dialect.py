"""What must be known of a route before its body is read."""

from __future__ import annotations

from dataclasses import dataclass

from subllm.serving.server.errors import ErrorShape


@dataclass(frozen=True)
class Dialect:
    """error     the body of a failure
    any_type  bodies are read as JSON whatever their Content-Type, or without one
    """

    error: ErrorShape
    any_type: bool = False
