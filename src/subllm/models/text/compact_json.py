"""How a grammar of JSON wants white space, in llguidance's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COMPACT: Mapping[str, Any] = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}
"""As models write it on one line. Free white space would be a way to go on for ever."""
