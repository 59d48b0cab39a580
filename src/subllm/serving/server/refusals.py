"""Fields that would change the result and are not served are refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from subllm.errors import excerpt
from subllm.serving.server.errors import bad_request

Refusals = Mapping[str, tuple[Any, ...]]
"""By field the values that ask for nothing, beside null, false, 0, "" and empty ones."""


def refuse(
    fields: Mapping[str, Any] | None, table: Refusals, instead: Mapping[str, str] | None = None
) -> None:
    """Raises ApiError for the first of `fields` that asks for something of `table`."""
    for name, value in (fields or {}).items():
        if name in table and value and value not in table[name]:
            hint = (instead or {}).get(name, "leave it out")
            raise bad_request(
                f"{excerpt(name)} is not supported; {hint}", name, "unsupported_parameter"
            )
