"""What every client here asks: the server's address and model come from the runner."""

from __future__ import annotations

import os

URL = os.environ["SUBLLM_URL"]
MODEL = os.environ["SUBLLM_MODEL"]
NO_MODEL = "no-such-model"
PROMPT = "def is_prime(n: int) -> bool:\n    "
PREFIX, SUFFIX = "def add(a, b):\n    total = ", "\n    return total\n"
QUESTION = "Name one sorting algorithm."
TOKENS = 24

SIZES = {
    "type": "object",
    "properties": {"size": {"enum": ["small", "large"]}},
    "required": ["size"],
    "additionalProperties": False,
}
"""A form that every model can be held to in a few tokens."""
