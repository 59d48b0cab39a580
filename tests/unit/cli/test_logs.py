"""`subllm logs`: of servers and recoveries in the background."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from subllm.cli import daemon, recover_job

from .conftest import Live
from .samples import BASE, Ran

Command = Callable[..., Ran]


def test_of_a_running_server(live: Live, subllm: Command) -> None:
    ran = subllm("logs")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith(f"listening  {live.server.url}/v1\n")
    document = subllm("logs", "--json", "-n", "1").json
    assert document["file"] == str(daemon.log_path(live.store.root, live.server.port))
    assert len(document["lines"]) == 1


def test_there_is_none(tmp_path: Path, subllm: Command) -> None:
    ran = subllm("logs")
    assert (ran.status, ran.out) == (8, "")
    assert "never started with --detach" in ran.err
    assert subllm("logs", "--recovery", f"{BASE}-python").status == 8
    assert subllm("logs", "--follow", "--json").status == 2


def test_a_server_on_a_terminal_is_named_by_its_port(tmp_path: Path, subllm: Command) -> None:
    with daemon.recorded(tmp_path / "subllm-home", "127.0.0.1", 8123):
        ran = subllm("logs")
    assert ran.status == 8
    assert "the server of port 8123 says it on its terminal" in ran.err


def test_of_a_recovery(tmp_path: Path, subllm: Command) -> None:
    path = recover_job.log_path(tmp_path / "subllm-home", f"{BASE}-python")
    path.parent.mkdir(parents=True)
    path.write_text("one\ntwo\nthree\n")
    assert subllm("logs", "--recovery", f"{BASE}-python", "-n", "2").out == "two\nthree\n"


def test_follow(tmp_path: Path) -> None:
    """What comes is shown, also after the file is begun anew; Ctrl-C ends it."""
    path = daemon.log_path(tmp_path / "subllm-home", 11435)
    path.parent.mkdir(parents=True)
    path.write_text("before\n")
    with subprocess.Popen(
        [sys.executable, "-m", "subllm", "logs", "-f"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "SUBLLM_HOME": str(tmp_path / "subllm-home")},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "before\n"
        with path.open("a") as file:
            file.write("more\n")
        assert process.stdout.readline() == "more\n"
        path.write_text("new\n")
        assert process.stdout.readline() == "new\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
