"""The command `llm`, with the server as one of its OpenAI-compatible models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from asked import MODEL, QUESTION, TOKENS, URL

with tempfile.TemporaryDirectory() as home:
    listed = [{"model_id": "local", "model_name": MODEL, "api_base": f"{URL}/v1"}]
    # JSON is YAML.
    (Path(home) / "extra-openai-models.yaml").write_text(json.dumps(listed))
    environment = {**os.environ, "LLM_USER_PATH": home, "OPENAI_API_KEY": "none"}
    llm = str(Path(sys.executable).with_name("llm"))
    texts = [
        subprocess.run(
            [llm, "-m", "local", "-o", "max_tokens", str(TOKENS), *options, QUESTION],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for options in ([], ["--no-stream"])
    ]
    assert texts[0].strip() and texts[0] == texts[1], texts
