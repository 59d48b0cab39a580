"""Puts a client's settings into its file, with the file as it was beside it."""

from __future__ import annotations

import time
from pathlib import Path

from subllm.cli.editors.endpoint import Endpoint
from subllm.cli.editors.tool import Tool
from subllm.errors import UsageError
from subllm.files import write_whole


def write_into(path: Path, tool: Tool, endpoint: Endpoint) -> tuple[bool, Path | None]:
    """Whether the file was changed, and where it lies as it was. A link is followed; rights
    are kept, and a new file is its owner's alone, as it may hold a key.

    Raises UsageError for a file that cannot be changed safely; it is then as it was.
    """
    path = path.resolve()
    try:
        old = path.read_bytes().decode() if path.exists() else None
        merged = tool.format.merge(old or "", tool.settings(endpoint), tool.gentle(endpoint))
        if merged == old:
            return False, None
        backup = None
        mode = 0o600
        if old is not None:
            mode = path.stat().st_mode & 0o777
            stamp = time.strftime("%Y%m%d-%H%M%S")
            backup = path.with_name(f"{path.name}.{stamp}.bak")
            write_whole(backup, old.encode(), mode=mode)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, merged.encode(), mode=mode)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: it is not UTF-8; give another --file") from error
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written ({error.strerror}); give another --file"
        ) from error
    return True, backup
