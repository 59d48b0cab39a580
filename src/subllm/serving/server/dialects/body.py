"""What the bodies of every dialect may say beside their own fields."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from subllm.quantities import seconds_of
from subllm.serving.server.errors import bad_request
from subllm.serving.server.generation import Prompt
from subllm.serving.server.values import Language, Path, Text, Wire

Predict = Annotated[int, Field(ge=-2, lt=2**31)]
"""As many tokens at most; below 0 as many as the context has room for."""
KeepAlive = str | int | float


class Body(Wire):
    """Which model, and what drafts for it; see `Generation`."""

    model: Text | None = None
    language: Language | None = None
    path: Path | None = None
    speculation: Annotated[Text, Field(max_length=1024)] | None = None

    def chosen(self) -> dict[str, Any]:
        """These fields, for a `Generation`."""
        return {
            "model": self.model,
            "language": self.language,
            "path": self.path,
            "speculation": self.speculation,
        }


def stops(given: str | list[str] | None) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given or ())


def prompts(given: str | list[Any] | None) -> tuple[Prompt, ...]:
    """One text, some texts, one list of token ids or some of these. Raises ApiError."""
    if given is None:
        raise bad_request("prompt: required", "prompt", "invalid_value")
    if isinstance(given, str):
        return (given,)
    if not given or any(item == [] for item in given):
        raise bad_request("prompt: a list must not be empty", "prompt", "invalid_value")
    if isinstance(given[0], int):
        return (tuple(given),)
    return tuple(item if isinstance(item, str) else tuple(item) for item in given)


def keep_alive_of(given: KeepAlive | None) -> float | None:
    """Seconds; see `Generation`. Raises ApiError."""
    if given is None:
        return None
    try:
        return seconds_of(given)
    except ValueError as error:
        raise bad_request(f"keep_alive: {error}", "keep_alive", "invalid_value") from error
