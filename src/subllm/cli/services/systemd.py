"""A unit of the user's systemd."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from subllm.cli.services.service import Service, ask, must

NAME = "subllm.service"


class Unit(Service):
    log = "the journal: journalctl --user -u subllm -f"

    def __init__(self) -> None:
        config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
        self.file = Path(config) / "systemd" / "user" / NAME

    def text(self, command: Sequence[str], environment: Mapping[str, str]) -> str:
        lines = [f"Environment={_quoted(f'{name}={value}')}" for name, value in environment.items()]
        return "\n".join(
            [
                "[Unit]",
                "Description=subllm, coding models for the editor",
                "StartLimitIntervalSec=60",
                "StartLimitBurst=4",
                "",
                "[Service]",
                "Type=exec",
                f"ExecStart={' '.join(_quoted(part.replace('$', '$$')) for part in command)}",
                *lines,
                "Restart=on-failure",
                "RestartSec=3",
                "TimeoutStopSec=20",
                "Nice=5",
                "NoNewPrivileges=yes",
                "UMask=0077",
                "",
                "[Install]",
                "WantedBy=default.target",
                "",
            ]
        )

    def start(self) -> None:
        hint = (
            f"{self.file} is written: when you are logged in on the machine itself, "
            f"'systemctl --user enable --now {NAME}' starts it"
        )
        must("systemctl", "--user", "daemon-reload", hint=hint)
        must("systemctl", "--user", "enable", NAME, hint=hint)
        must("systemctl", "--user", "restart", NAME, hint=hint)

    def running(self) -> bool:
        return ask("systemctl", "--user", "is-active", "--quiet", NAME)[0]

    def remove(self) -> None:
        self.require()
        ask("systemctl", "--user", "disable", "--now", NAME)
        self.file.unlink(missing_ok=True)
        ask("systemctl", "--user", "daemon-reload")


def _quoted(text: str) -> str:
    """One word of a unit file: `%` begins a specifier there, quotes and backslashes are C's."""
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"'
