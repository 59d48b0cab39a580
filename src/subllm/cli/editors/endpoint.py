"""Where the server answers, as a client has to be told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Endpoint:
    """url      scheme, host and port, such as http://127.0.0.1:11435
    model    a name that is served; it keeps the family, by which clients choose the format of
             their prompts
    context  tokens of prompt and completion
    key      what the server asks for; None: nothing
    """

    url: str
    model: str
    context: int
    key: str | None = None

    @property
    def openai(self) -> str:
        """The base URL of OpenAI's clients."""
        return f"{self.url}/v1"

    @property
    def some_key(self) -> str:
        """For clients that do not do without one."""
        return self.key or "none"
