"""Libraries that draw: an optional part of subllm, imported when a picture is asked for."""

from __future__ import annotations

import importlib
from typing import Any

from subllm.errors import MissingExtraError


def drawing(module: str) -> Any:
    """A module of matplotlib or treescope. Raises MissingExtraError where it is not there."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"pictures need {module.partition('.')[0]}, which cannot be imported ({error}); "
            "run: pip install 'subllm[report]'"
        ) from error
