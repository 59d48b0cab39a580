"""Who works in the store, as the page shows it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from subllm.models.store.store import Store
from subllm.models.store.working import Work, working

OWN = "extract tiny:1m python"


def test_holders_of_locks(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert working(store.workspace) == []
    with store.lock(OWN), store.lock("other"):
        partial = store.partial(OWN)
        partial.mkdir()
        for block in range(3):
            (partial / f"block-{block:04d}.packed").touch()
        (partial / "state.safetensors").touch()
        assert working(store.workspace) == [
            Work("extract-tiny-1m-python", os.getpid(), 3),
            Work("other", os.getpid()),
        ]
    assert working(store.workspace) == []


def test_the_command_that_works(tmp_path: Path) -> None:
    """As the system tells it of a process that calls itself subllm."""
    store = Store(tmp_path)
    words = ["recover", "tiny:1m-python", "--for", "1h"]
    code = "import sys, time; print('up', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        ["subllm", "-c", code, *words],
        executable=sys.executable,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with store.lock(OWN):
            (holder,) = store.workspace.locks.glob("key-*.holder")
            holder.write_text(json.dumps({"pid": process.pid}))
            (work,) = working(store.workspace)
        process.communicate("")
    assert work.command.startswith("subllm -c ")
    assert work.command.endswith(" ".join(words))


def test_the_dead_do_not_work(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.lock(OWN):
        (holder,) = store.workspace.locks.glob("key-*.holder")
        for left in ('{"pid": 999999999}', "{", '{"pid": null}'):
            holder.write_text(left)
            assert working(store.workspace) == []
