"""What a completion may be made of, token by token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:  # the command line asks a server without it
    import numpy as np
    import numpy.typing as npt

AllowedTokens: TypeAlias = "npt.NDArray[np.uint32]"
"""A bit for each token, the lowest of a word first; tokens beyond the last word are forbidden."""


class Constraint(Protocol):
    """Follows one completion from its first token to its last, on the engine's thread."""

    @property
    def error(self) -> str | None:
        """Why it cannot be followed any further; the completion fails."""

    @property
    def done(self) -> bool:
        """Whether anything may come from now on."""

    def allowed(self) -> AllowedTokens:
        """The tokens that may come next. Valid until the next call."""

    def take(self, token: int) -> None:
        """This one was chosen, one of `allowed`."""
