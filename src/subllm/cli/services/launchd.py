"""An agent of macOS's launchd."""

from __future__ import annotations

import os
import plistlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from subllm.cli.services.service import Service, ask, must

LABEL = "dev.subllm.serving.server"


class Agent(Service):
    def __init__(self) -> None:
        self.file = Path.home() / "Library" / "LaunchAgents" / f"{LABEL}.plist"
        self._log = Path.home() / "Library" / "Logs" / "subllm.log"
        self.log = str(self._log)

    def text(self, command: Sequence[str], environment: Mapping[str, str]) -> str:
        described = {
            "Label": LABEL,
            "ProgramArguments": list(command),
            "EnvironmentVariables": dict(environment),
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ThrottleInterval": 10,
            "ProcessType": "Background",
            "StandardOutPath": self.log,
            "StandardErrorPath": self.log,
        }
        return plistlib.dumps(described, sort_keys=False).decode()

    def start(self) -> None:
        ask("launchctl", "bootout", self._target())  # what ran before
        hint = f"{self.file} is written; log in on the machine itself and try again"
        must("launchctl", "bootstrap", self._domain(), str(self.file), hint=hint)

    def running(self) -> bool:
        good, _ = ask("launchctl", "print", self._target())
        return good

    def remove(self) -> None:
        self.require()
        ask("launchctl", "bootout", self._target())
        self.file.unlink(missing_ok=True)

    def _domain(self) -> str:
        return f"gui/{os.getuid()}"

    def _target(self) -> str:
        return f"{self._domain()}/{LABEL}"
