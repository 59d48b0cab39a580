"""`subllm export`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from subllm.models.store.store import Store

from .samples import Ran
from .tiny_store import BASE, SPECIAL

Command = Callable[..., Ran]
PYTHON = f"{BASE}-python"


def test_hf_by_default(tiny: Store, subllm: Command, tmp_path: Path) -> None:
    ran = subllm("export", PYTHON, "--to", str(tmp_path / "out"))
    assert ran.status == 0
    assert f"directory  {tmp_path / 'out'}" in ran.out and "21 BF16" in ran.out
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["model_type"] == "llama"
    assert SPECIAL[0] in (tmp_path / "out/tokenizer_config.json").read_text()


def test_json(tiny: Store, subllm: Command, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    document = subllm("export", PYTHON, "--to", out, "--type", "f32", "--json").json
    assert (document["format"], document["type"], document["directory"]) == ("hf", "f32", out)
    assert document["bytes"] == sum(document["files"].values())
    assert document["tensors"] == {"F32": 21} and document["notes"] == []


def test_errors_are_one_line(tiny: Store, subllm: Command, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    for arguments, status, word in (
        ((PYTHON, "--to", out, "--format", "gguf"), 2, "GGUF has a name for"),
        ((PYTHON, "--to", out, "--format", "compressed-tensors"), 2, "--pattern 2:4"),
        ((PYTHON, "--to", out, "--format", "onnx"), 2, "formats are hf, gguf"),
        ((PYTHON, "--to", f"{out}/deeper"), 2, "make it first"),
        ((BASE, "--to", out), 2, "is a base, not a model"),
        ((f"{BASE}-ruby", "--to", out), 2, "unknown model"),
    ):
        ran = subllm("export", *arguments)
        assert (ran.status, ran.out) == (status, ""), arguments
        assert word in ran.err and ran.err.count("\n") == 1, arguments
    assert not (tmp_path / "out").exists()


def test_ctrl_c_leaves_nothing(tiny: Store, tmp_path: Path) -> None:
    """A process of its own, stopped at its first written bytes."""
    script = (
        "import sys, os, signal\n"
        "from subllm.sharing.export import safetensors_writer\n"
        "from subllm.cli.app import run\n"
        "real = safetensors_writer.as_type\n"
        "def stop(*given):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    return real(*given)\n"
        "import subllm.sharing.export.hf as hf\n"
        "hf.as_type = stop\n"
        "sys.exit(run(sys.argv[1:]))\n"
    )
    target = tmp_path / "exports" / "out"
    target.parent.mkdir()
    arguments = ["export", PYTHON, "--to", str(target)]
    environment = {**os.environ, "SUBLLM_HOME": str(tiny.root)}
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        env=environment, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    began = time.monotonic()
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert "Traceback" not in error and time.monotonic() - began < 120
    assert list(target.parent.iterdir()) == []
