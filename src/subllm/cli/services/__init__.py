"""Services of the operating system, a file for each that keeps them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from subllm.cli.services.service import Service


def manager() -> Service:
    """What keeps services here. Raises UsageError where nothing known does."""
    from subllm.errors import UsageError

    if sys.platform == "darwin":
        from subllm.cli.services.launchd import Agent

        return Agent()
    if sys.platform.startswith("linux"):
        from subllm.cli.services.systemd import Unit

        return Unit()
    raise UsageError("services are known of Linux and macOS; start 'subllm serve' yourself here")
