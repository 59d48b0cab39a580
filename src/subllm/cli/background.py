"""Commands that go on in the background: started, known by a record, believed while alive."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def began(pid: int | None = None) -> float:
    """When a process, this one by default, began: seconds by a clock that nobody sets. On Linux
    since the system started, as it tells no other: the same as a time of day moves with the clock,
    by a second when that drifts. Raises psutil.NoSuchProcess."""
    import psutil

    created: float = psutil.Process(pid).create_time()
    return created - psutil.boot_time() if psutil.LINUX else created


def alive(pid: int, created: float) -> bool:
    """Whether the very process that began at `created` (see `began`: a pid alone may have been
    reused) still runs."""
    import psutil

    try:
        zombie = psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        # The clock may be set between the two times that `began` asks for.
        return not zombie and abs(began(pid) - created) < 1.5
    except psutil.NoSuchProcess:
        return False


def spawn(
    arguments: Sequence[str], log: Path, home: Path, cwd: str = "/", *, nice: int = 0
) -> subprocess.Popen[bytes]:
    """Start `subllm ARGUMENTS` on the store `home`, in a session of its own, that writes what it
    says to `log`. It gives way to others by `nice`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "subllm", *arguments]
    with log.open("wb") as output:
        return subprocess.Popen(
            [*(["nice", "-n", str(nice)] if nice else []), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=cwd,
            env=environment(home),
        )


def last_line(log: Path) -> str:
    """What it said last."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ") if lines else f"it said nothing; see {log}"


def environment(home: Path) -> dict[str, str]:
    """Ours on the store `home`, with paths that mean the same in another directory."""
    environment = {**os.environ, "SUBLLM_HOME": str(home)}
    for name in ("SUBLLM_CONFIG", "SUBLLM_CATALOG"):
        if value := environment.get(name):
            environment[name] = str(Path(value).expanduser().absolute())
    return environment
