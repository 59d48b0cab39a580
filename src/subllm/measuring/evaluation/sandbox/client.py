"""The harness's hold on the launcher process: starts it, asks it for runs, ends it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from subllm.errors import SandboxError
from subllm.measuring.evaluation.sandbox import cgroups, wire

_SOURCE = Path(__file__).resolve().parents[4]  # the directory that holds the package subllm
_CODE = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from subllm.measuring.evaluation.sandbox import launcher; launcher.main()"
)
# Own control groups without being root: systemd hands out a subtree.
_SCOPE = ("--scope", "--quiet", "--collect", "--property=Delegate=yes", "--")
_HELLO_SECONDS = 30.0
_END_SECONDS = 30.0


class LauncherClient:
    """A launcher in `mode` (see launcher.py); `scoped` starts it through systemd.

    `enforced` and `missing` are its words on what it can do, `groups` whether control
    groups are among it. Raises SandboxError when it cannot take on what it needs.
    """

    def __init__(self, mode: str, directory: Path, *, scoped: bool = False) -> None:
        self._lock = threading.Lock()
        self._leaf: str | None = None  # group that it lives in
        self._control, theirs = socket.socketpair()
        python = [sys.executable, "-I", "-S", "-c", _CODE, str(_SOURCE), mode, str(directory)]
        with theirs:
            self._process = subprocess.Popen(
                [*_systemd_run(), *python] if scoped else python,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=None if os.environ.get("SUBLLM_DEBUG") else subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,  # Ctrl-C is for the harness
            )
        try:
            self._control.settimeout(_HELLO_SECONDS)
            hello, _ = wire.receive(self._control)
            self._control.settimeout(None)
        except (wire.Ended, OSError) as error:
            self.close()
            raise SandboxError(f"its helper process did not start: {error!r}") from error
        except BaseException:
            self.close()
            raise
        if "error" in hello:
            self.close()
            raise SandboxError(hello["error"])
        self.enforced: tuple[str, ...] = tuple(hello["enforced"])
        self.missing: tuple[str, ...] = tuple(hello["missing"])
        self.groups: bool = hello["groups"]
        self._leaf = hello["leaf"]

    def connect(self, descriptors: Sequence[int] = ()) -> socket.socket:
        """A connection to a new keeper, which gets copies of `descriptors`."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                with self._lock:
                    socket.send_fds(self._control, [wire.RUN], [theirs.fileno(), *descriptors])
            except OSError as error:
                ours.close()
                raise SandboxError(
                    f"the sandbox's helper process has ended ({error}); start again"
                ) from error
        return ours

    def close(self) -> None:
        """End the launcher, which waits for its keepers to end their runs."""
        with suppress(OSError):
            self._control.sendall(wire.DONE)
        self._control.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._leaf is not None:
            cgroups.remove(Path(self._leaf))


def scope_possible() -> bool:
    """Whether systemd runs here and can be asked."""
    return Path("/run/systemd/system").is_dir() and shutil.which("systemd-run") is not None


def _systemd_run() -> list[str]:
    return ["systemd-run", *([] if os.geteuid() == 0 else ["--user"]), *_SCOPE]
