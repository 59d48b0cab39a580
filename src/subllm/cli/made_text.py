"""`made:NAME` in sources of text: a file of 'subllm data list'."""

from __future__ import annotations

import re
from pathlib import Path

from subllm.errors import UnknownNameError

_MADE = re.compile(r"(^|,\s*)made:([^,=]+)")


def with_made(home: Path, spec: str) -> str:
    """`spec` with paths instead of `made:NAME`. Raises UnknownNameError for a name of none."""
    if "made:" not in spec:
        return spec
    from subllm.making.textmaking.made import all_made

    known = {path.stem: path for path in all_made(home)}

    def path_of(found: re.Match[str]) -> str:
        if found[2] not in known:
            hint = "'subllm data list' shows what was made"
            raise UnknownNameError("made text", found[2], known, hint)
        return f"{found[1]}{known[found[2]]}"

    return _MADE.sub(path_of, spec)
