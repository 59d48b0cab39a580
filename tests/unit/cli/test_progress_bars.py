"""Progress on a terminal and elsewhere."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

from subllm.cli import progress_bars
from subllm.cli.progress_bars import RichProgress


@pytest.mark.parametrize(
    ("done", "total", "unit", "text"),
    [
        (210_000_000, 491_400_064, "bytes", "210.0/491.4 MB"),
        (500, 49_152, "bytes", "0/49 kB"),
        (0, 0, "bytes", "0/0 bytes"),
        (1_500_000, None, "bytes", "1.5 MB"),
        (12, 24, "blocks", "12/24 blocks"),
        (1234, None, "tokens", "1,234 tokens"),
    ],
)
def test_amounts(done: float, total: float | None, unit: progress_bars.Unit, text: str) -> None:
    assert progress_bars.amounts(done, total, unit) == text


def test_without_a_terminal_lines_come_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(progress_bars.time, "monotonic", lambda: clock[0])
    with RichProgress() as progress:
        progress.start("k", "pull x", 400, "blocks")
        for _ in range(80):
            clock[0] += 0.25
            progress.advance("k", 2.5)
        progress.revise("k", "pull y", 300)
        clock[0] += 5
        progress.advance("k", 50)
        progress.note("resuming")
        progress.finish("k")
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == ""
    assert lines == [
        "pull x: 50/400 blocks  10 blocks/s  35 s left",
        "pull x: 100/400 blocks  10 blocks/s  30 s left",
        "pull x: 150/400 blocks  10 blocks/s  25 s left",
        "pull x: 200/400 blocks  10 blocks/s  20 s left",
        "pull y: 250/300 blocks  10 blocks/s  5 s left",
        "resuming",
        "pull y: 250 blocks in 25.0 s",
    ]


def test_quiet_keeps_notes_only(capsys: pytest.CaptureFixture[str]) -> None:
    with RichProgress(quiet=True) as progress:
        progress.start("k", "pull x", 4, "blocks")
        progress.advance("k", 4)
        progress.note("resuming")
        progress.finish("k")
    assert capsys.readouterr().err == "resuming\n"


def test_on_a_terminal_a_bar_fits_80_columns_and_notes_stand_above() -> None:
    code = (
        "import time; from subllm.cli.progress_bars import RichProgress\n"
        "with RichProgress() as progress:\n"
        "    progress.start('k', 'pull deepseek-coder:1.3b-javascript', 491_400_064, 'bytes')\n"
        "    for step in range(6):\n"
        "        progress.revise('k', 'loss 0.312, held-out 91.2%', 491_400_064)\n"
        "        progress.advance('k', 49_140_006); time.sleep(0.25)\n"
        "        if step == 3: progress.note('the hub does not answer')\n"
        "    raise KeyboardInterrupt\n"
    )
    master, slave = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80", "LINES": "24", "TERM": "xterm"}
    with subprocess.Popen(
        [sys.executable, "-c", code], stderr=slave, stdout=slave, env=environment
    ) as process:
        os.close(slave)
        shown = b""
        try:
            while chunk := os.read(master, 65536):
                shown += chunk
        except OSError:  # how Linux reports that the other side has closed
            pass
        process.wait()
    os.close(master)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    frames = [line for line in re.split(r"[\r\n]+", text) if "MB/s" in line]
    assert frames
    assert all(len(frame) <= 80 for frame in frames)
    assert re.search(r"\d+\.\d/491\.4 MB  \d+\.\d MB/s +\d+:\d\d", frames[-1])
    assert "the hub does not answer" in text and "held-out 91.2%" in frames[-1]
    assert text.rstrip().endswith("KeyboardInterrupt")  # Python 3.13 colours it
    assert b"\x1b[?25h" in shown  # the cursor is back
