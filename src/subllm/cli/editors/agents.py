"""What agents have in common: long instructions of their own."""

from __future__ import annotations

from subllm.cli.editors.endpoint import Endpoint

INSTRUCTIONS = 16_384
"""Tokens that an agent's own instructions and tools may take, before anybody has asked."""


def warning(to: Endpoint) -> list[str]:
    if to.context >= 2 * INSTRUCTIONS:
        return []
    return [
        f"Its own instructions are long and {to.context} tokens are served: start the server "
        f"with --context-length {2 * INSTRUCTIONS}."
    ]
