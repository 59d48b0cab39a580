"""Files of a report, written so that a reader never sees half of one."""

from __future__ import annotations

from pathlib import Path

from subllm.errors import UsageError
from subllm.files import write_whole


def write_file(path: Path, content: str | bytes) -> Path:
    """Makes the directory where need be; raises UsageError when it cannot be written to."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise UsageError(
            f"cannot write {path} ({error.strerror}); choose another directory"
        ) from error
    return path
