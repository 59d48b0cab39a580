"""Files of a report, written so that a reader never sees half of one."""

from __future__ import annotations

from pathlib import Path

from subllm.errors import UsageError


def write_file(path: Path, content: str | bytes) -> Path:
    """Makes the directory where need be; raises UsageError when it cannot be written to."""
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        partial.replace(path)
    except OSError as error:
        raise UsageError(
            f"cannot write {path} ({error.strerror}); choose another directory"
        ) from error
    return path
