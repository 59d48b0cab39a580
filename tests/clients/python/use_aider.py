"""aider: one edit of one file, whole-file format, no git."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from asked import MODEL, URL

with tempfile.TemporaryDirectory() as place:
    file = Path(place) / "shapes.py"
    before = "def area(width, height):\n    return 0\n"
    file.write_text(before)
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("aider")),
            *("--model", f"openai/{MODEL}", "--edit-format", "whole"),
            *("--openai-api-base", f"{URL}/v1", "--openai-api-key", "none"),
            *("--no-git", "--yes-always", "--no-check-update", "--no-analytics"),
            *("--no-show-model-warnings", "--no-gitignore", "--no-stream", "--map-tokens", "0"),
            *("--message", "Make area return width * height instead of 0."),
            file.name,
        ],
        cwd=place,
        env={**os.environ, "HOME": place},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    after = file.read_text()
    assert after != before and "*" in after, f"{done.stdout}\n{done.stderr}\n{after}"
    compile(after, file.name, "exec")
