"""What all keepers of services have in common."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from subllm.errors import ServerError
from subllm.files import write_whole

_SECONDS = 30


class Service(ABC):
    """file  what describes it
    log   where it says what it does, for a person
    """

    file: Path
    log: str

    @abstractmethod
    def text(self, command: Sequence[str], environment: Mapping[str, str]) -> str:
        """The file's content."""

    @abstractmethod
    def start(self) -> None:
        """Now and at every login. Raises ServerError."""

    @abstractmethod
    def running(self) -> bool: ...

    @abstractmethod
    def remove(self) -> None:
        """Stop it and remove its file. Raises ServerError where there is none."""

    def write(self, text: str) -> None:
        """Raises ServerError."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.file, text.encode(), mode=0o600)
        except OSError as error:
            raise ServerError(f"{self.file} cannot be written ({error.strerror})") from error

    def require(self) -> None:
        if not self.file.exists():
            raise ServerError("no service is installed; 'subllm service install' does that")


def ask(*command: str) -> tuple[bool, str]:
    """Whether a command of the system went well, and what it said last."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except FileNotFoundError:
        return False, f"{command[0]} is not there"
    except subprocess.TimeoutExpired:
        return False, f"{command[0]} did not answer in {_SECONDS} s"
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return done.returncode == 0, lines[-1] if lines else ""


def must(*command: str, hint: str) -> None:
    """As `ask`. Raises ServerError."""
    good, said = ask(*command)
    if not good:
        raise ServerError(f"{' '.join(command)} failed ({said or 'it said nothing'}); {hint}")
