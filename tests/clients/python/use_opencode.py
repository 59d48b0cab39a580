"""opencode: one turn, set up as `subllm config opencode` does; run by the project's own Python.

Its agent here has a short prompt and no tools: its own prompt is ten thousand tokens, which take a
small machine minutes to read.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from asked import MODEL, QUESTION, URL

from subllm.cli.editors.endpoint import Endpoint
from subllm.cli.editors.opencode import TOOL

OFFLINE = ("AUTOUPDATE", "MODELS_FETCH", "LSP_DOWNLOAD", "DEFAULT_PLUGINS")


def program() -> str:
    """The binary of this machine: its package is fetched, and nothing of it is run, by the
    installation. The baseline does without AVX2."""
    found = sorted(Path("opencode/node_modules").glob("opencode-*/bin/opencode"))
    return str((found[-1] if found else Path("opencode")).resolve())


with urllib.request.urlopen(f"{URL}/v1/models", timeout=60) as reply:
    context = {m["id"]: m["context_length"] for m in json.load(reply)["data"]}[MODEL]
settings: dict[str, Any] = json.loads(TOOL.text(Endpoint(URL, MODEL, context)))
short = {"mode": "primary", "prompt": "You answer in one line.", "tools": {"*": False}}
settings["agent"] = {"short": short}
with tempfile.TemporaryDirectory() as place:
    file = Path(place, ".config", "opencode", "opencode.json")
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(settings))
    arguments = ["run", "--format", "json", "--agent", "short", "--title", "one", QUESTION]
    done = subprocess.run(
        [program(), *arguments],
        cwd=place,
        env={
            **{key: value for key, value in os.environ.items() if not key.startswith("XDG_")},
            **{f"OPENCODE_DISABLE_{what}": "1" for what in OFFLINE},
            "HOME": place,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=800,
    )
said = f"{done.stdout}\n{done.stderr}"
events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
text = "".join(event["part"]["text"] for event in events if event["type"] == "text")
ends = [event["part"] for event in events if event["type"] == "step_finish"]
assert done.returncode == 0 and text.strip(), said
assert [end["reason"] for end in ends] in (["stop"], ["length"]), said
assert ends[0]["tokens"]["input"] > 0 and ends[0]["tokens"]["output"] > 0, said
print(text, file=sys.stderr)
