"""`subllm extract --recover` and `subllm recover` on a tiny base and a directory of code."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from subllm.cli import jobs, recover_job
from subllm.models.store.store import Store

from .samples import Ran, with_recipe
from .tiny_store import BASE, LARGER, add_larger, write_checkpoint

Command = Callable[..., Ran]
NAME = f"{BASE}-python"


pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture
def where(code: str) -> list[str]:
    return [
        "--base",
        BASE,
        "--calibration",
        code,
        "calibration.samples=4",
        "calibration.seq_len=64",
    ]


def test_recovered_listed_shown_and_gone_on_with(
    tiny: Store, where: list[str], subllm: Command
) -> None:
    ran = subllm("extract", "python", *where, "--recover", "2048tok")
    assert ran.status == 0, ran.err
    assert f"then recovery for 2048tok on path:{where[3]}" in ran.err
    told = r"\nwhich takes about \d+\.\d MB of memory; packing after it about \d+\.\d+ s\n"
    assert re.search(told, ran.err), ran.err
    facts = dict(line.split("  ", 1) for line in ran.out.splitlines())
    assert " tokens of path:" in facts["recovered"] and "agreement" in facts["recovered"]
    assert "perplexity" in facts["python packing"]
    record = tiny.model(NAME).recovery
    assert record is not None
    assert "recovered" in subllm("show", NAME).out
    assert "RECOVERED" in subllm("list").out
    assert subllm("extract", "python", *where, "--recover", "2048tok", "--json").json["cached"]

    first = tiny.resolve(NAME)
    went = subllm("recover", NAME, "--for", "4096tok", "--json")
    assert went.status == 0, went.err
    assert went.json["stopped"] == "budget"
    assert went.json["better"] == (tiny.resolve(NAME) != first)
    assert subllm("recover", NAME, "--status", "--json").json["running"] is None
    assert "state" in subllm("show", NAME).out
    assert subllm("complete", "def f(", "-m", NAME, "-n", "3").status == 0
    replacing = subllm("extract", "python", *where)
    assert "and will be replaced" in replacing.err and ", recovered on " in replacing.err
    assert tiny.model(NAME).recovery is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["extract", "python", "--recover", "soon"], "'soon' is no budget for recovery"),
        (["extract", "python", "--recover", "2Mtk"], "use a duration (90m, 2h), tokens"),
        (["extract", "python", "--recover", "0m"], "'0m' is no budget"),
        (["extract", "python", "--recover", "100tok"], "less than the 2,048 tokens of one step"),
        (
            ["extract", "python", "--fast", "--recover", "90m"],
            "(--fast) leaves recovery out",
        ),
        (["recover", f"{BASE}-java"], "say one of --for, --status and --stop"),
        (["recover", f"{BASE}-java", "--for", "1h", "--stop"], "say one of --for, --status"),
        (["recover", f"{BASE}-java", "--for", "x"], "'x' is no budget for recovery"),
        (["recover", f"{BASE}-java", "--for", "1h"], "there is nothing to recover"),
        (["recover", BASE, "--for", "1h"], "is a base, not a model"),
    ],
)
def test_bad_requests_are_one_line_and_change_nothing(
    arguments: list[str], message: str, tiny: Store, where: list[str], subllm: Command
) -> None:
    before = tiny.names()
    text = where[:4] if "--fast" in arguments else where
    ran = subllm(*arguments, *(text if arguments[0] == "extract" else []))
    assert (ran.status, ran.out) == (2, "")
    last = ran.err.splitlines()[-1]
    assert last.startswith("error: ") and message in last
    assert tiny.names() == before


def test_a_larger_base_teaches(
    tiny: Store, where: list[str], tmp_path: Path, subllm: Command
) -> None:
    add_larger(tiny, tmp_path / "larger")
    recovered = ("--recover", "2048tok", f"recovery.teacher='{LARGER}'", "report.problems=false")
    ran = subllm("extract", "python", *where, *recovered)
    assert ran.status == 0, ran.err
    assert f"in several forms), holes from {LARGER}; Ctrl-C stops it" in ran.err
    assert f"agreement (in holes with {LARGER}) " in ran.out
    record = tiny.model(NAME).recovery
    assert record is not None and record.teacher == LARGER
    # What its own base teaches is another sub-model, whose name it may be.
    own = subllm(
        "extract",
        "python",
        *where,
        *recovered[:2],
        f"recovery.teacher='{BASE}'",
        "report.problems=false",
    )
    assert own.status == 0 and "and will be replaced" in own.err
    record = tiny.model(NAME).recovery
    assert record is not None and record.teacher == ""
    went = subllm(
        "recover", NAME, "--for", "2048tok", f"recovery.teacher='{LARGER}'", "report.problems=false"
    )
    assert went.status == 0, went.err
    assert f"in several forms), holes from {LARGER}, cpu in " in went.err


def test_who_cannot_teach(tiny: Store, where: list[str], tmp_path: Path, subllm: Command) -> None:
    directory = write_checkpoint(tmp_path / "other")
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert subllm("pull", str(directory), "--name", "other-coder:1m").status == 0
    before = tiny.names()
    for arguments, message in (
        (
            ["--recover", "2048tok", "recovery.teacher='other-coder:1m'"],
            "its token ids mean other texts",
        ),
        (["--recover", "2048tok", f"recovery.teacher='{BASE}-java'"], "not a base"),
        (["--recover", "off", f"recovery.teacher='{LARGER}'"], "a teacher is for recovery"),
        (["recovery.for='off'", f"recovery.teacher='{LARGER}'"], "a teacher is for recovery"),
    ):
        ran = subllm("extract", "python", *where, *arguments)
        assert (ran.status, ran.out) == (2, ""), ran.err
        last = ran.err.splitlines()[-1]
        assert last.startswith("error: ") and message in last
    assert tiny.names() == before


def test_text_without_enough_tokens(
    tiny: Store, where: list[str], tmp_path: Path, subllm: Command
) -> None:
    assert subllm("extract", "python", *where, "--recover", "off").status == 0
    before = tiny.resolve(NAME)
    empty, small = tmp_path / "empty", tmp_path / "small"
    empty.mkdir()
    small.mkdir()
    (small / "a.py").write_text("def f(x):\n    return x + 1\n\n\n" * 12)
    for directory in (empty, small):
        ran = subllm("recover", NAME, "--for", "1h", "--calibration", str(directory))
        assert (ran.status, ran.out) == (2, "")
        assert ran.err.splitlines()[-1].startswith("error: ")
    assert "recovery needs 2048; add text to it" in ran.err
    assert tiny.resolve(NAME) == before
    none = subllm("recover", NAME, "--stop")
    assert none.status == 4 and f"no recovery of {NAME} runs" in none.err


def test_in_the_background_it_is_found_and_stopped(
    tiny: Store, where: list[str], subllm: Command
) -> None:
    assert subllm("extract", "python", *where).status == 0
    started = subllm("recover", NAME, "--for", "3h", "--background", "--json")
    assert started.status == 0, started.err
    try:
        state = subllm("recover", NAME, "--status", "--json").json
        assert state["running"]["pid"] == started.json["pid"]
        assert state["running"]["for"] == "3h"
        second = subllm("recover", NAME, "--for", "1h")
        assert second.status == 4 and "is being recovered already" in second.err
    finally:
        stopped = subllm("recover", NAME, "--stop")
    assert stopped.status == 0, stopped.err
    log = recover_job.log_path(tiny.root, NAME).read_text()
    assert "stopping after this step" in log
    assert "Traceback" not in log
    assert subllm("recover", NAME, "--status", "--json").json["running"] is None
    assert subllm("verify", NAME).status == 0


@pytest.mark.long
def test_ctrl_c_stops_an_extraction_that_can_go_on(
    tiny: Store, where: list[str], tmp_path: Path
) -> None:
    words = with_recipe(tmp_path, "extract", "python", *where, "--recover", "3h")
    command = [sys.executable, "-m", "subllm", *words]
    environment = {**os.environ, "SUBLLM_HOME": str(tiny.root)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        deadline = time.monotonic() + 300
        while not list(tiny.workspace.partials.glob("*/pruned.packed")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert process.wait() == 130
    assert "stopped; the same command goes on where it was" in said
    assert "Traceback" not in said
    assert NAME in tiny.names()  # the one of before
    assert list(tiny.workspace.partials.glob("*/pruned.packed"))


def test_an_extraction_recovers_unless_told_otherwise(
    tiny: Store, where: list[str], subllm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subllm.making.extraction.defaults.DEFAULT_RECOVERY", "2048tok")
    ran = subllm("extract", "python", *where)
    assert ran.status == 0, ran.err
    made = tiny.model(NAME)
    assert made.recovery is not None and made.recovery.budget == "2048tok"
    assert (made.method.name, made.pattern, made.values) == ("sparsegpt", "11:16", "int4")
    assert subllm("extract", "python", *where[:4], "--fast").status == 0
    made = tiny.model(NAME)
    assert made.recovery is None and (made.method.name, made.values) == ("wanda", "int4")
    given = subllm("extract", "python", *where, "prune.method='wanda'", "store.values='int8'")
    assert given.status == 0, given.err
    made = tiny.model(NAME)
    assert made.recovery is not None and (made.method.name, made.values) == ("wanda", "int8")


def test_whoever_finds_a_recovery_can_stop_it_at_once(
    tiny: Store, where: list[str], subllm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert subllm("extract", "python", *where, "--recover", "off").status == 0
    write = jobs.write_whole

    def written(path: Path, data: bytes, mode: int) -> None:
        write(path, data, mode=mode)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(jobs, "write_whole", written)
    ran = subllm("recover", NAME, "--for", "3h", "--json")
    assert ran.status == 0, ran.err
    assert ran.json["stopped"] == "asked" and "stopping after this step" in ran.err


def test_what_cannot_be_said_in_the_midst_of_a_line_is_said_after_it() -> None:
    said: list[str] = []
    busy = True

    def tell(line: str) -> None:
        if busy:
            raise RuntimeError("reentrant call")
        said.append(line)

    stop = recover_job.Stop(tell)
    with stop.listening():
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked and not said
        busy = False
        assert stop() and stop()
    assert len(said) == 1


def test_a_recovery_that_nobody_asked_for_stops_no_extraction(
    tiny: Store, tmp_path: Path, subllm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With too little text to learn from, or too little memory."""
    monkeypatch.setattr("subllm.making.extraction.defaults.DEFAULT_RECOVERY", "60m")
    text = "".join(f"def f_{i}(x):\n    return x * {i}\n\n\n" for i in range(24))
    (tmp_path / "a.py").write_text(text)
    where = [
        "--base",
        BASE,
        "--calibration",
        str(tmp_path),
        "calibration.samples=2",
        "calibration.seq_len=64",
    ]
    ran = subllm("extract", "python", *where)
    assert ran.status == 0, ran.err
    assert "python: no recovery here: " in ran.err and "recovery needs 2048" in ran.err
    made = tiny.model(NAME)
    assert (made.recovery, made.method.name, made.values) == (None, "wanda", "int4")
    asked = subllm("extract", "python", *where, "--recover", "60m")
    assert asked.status == 2 and "recovery needs 2048" in asked.err
    wrong = subllm("extract", "python", *where, "prune.pattern='9:8'")
    assert wrong.status == 2 and "no recovery here" not in wrong.err


def test_a_machine_with_little_memory_extracts_without_recovery(
    tiny: Store, where: list[str], subllm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subllm.making.extraction.defaults.DEFAULT_RECOVERY", "60m")
    monkeypatch.setattr("subllm.making.extraction.recovering.free_bytes", lambda _: 100_000_000)
    ran = subllm("extract", "python", *where)
    assert ran.status == 0, ran.err
    assert "no recovery here: recovery needs" in ran.err and "more than are free" in ran.err
    assert tiny.model(NAME).recovery is None
