"""`subllm complete` in this process and by a server: the same text, told apart by nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from subllm.cli import ask, daemon, server_client
from subllm.engine import loader
from subllm.models.store.store import Store

from .conftest import Live
from .samples import Ran
from .tiny_store import BASE, greedy, token

Command = Callable[..., Ran]
PROMPT = "def fib(n):"


def fim(prefix: str, suffix: str) -> list[int]:
    """The ids of a fill-in-the-middle prompt, by hand: a byte is a token. The line before the
    cursor is the first of what is filled in."""
    return [
        token("<|fim_prefix|>"),
        token("<|fim_suffix|>"),
        *suffix.encode(),
        token("<|fim_middle|>"),
        *prefix.encode(),
    ]


def test_text_is_the_engines_own_and_nothing_else(tiny: Store, subllm: Command) -> None:
    ran = subllm("complete", PROMPT, "-n", "12")
    assert ran.status == 0
    assert ran.out == greedy(tiny, PROMPT.encode(), 12)
    assert ran.err.startswith(f"{BASE}-python (by what the code looks like): 12 tokens (limit)")
    assert ran.err.count("\n") == 1


def test_a_server_says_the_same(live: Live, subllm: Command) -> None:
    for options in (
        [PROMPT],
        [PROMPT, "--suffix", "return a"],
        [PROMPT, "--set", "stop=R"],
        [PROMPT, "--set", "repetition_penalty=1.5"],
        [
            PROMPT,
            "--temperature",
            "0.9",
            "--set",
            "top_p=0.8",
            "--set",
            "top_k=50",
            "--set",
            "seed=3",
        ],
    ):
        here, there = (
            subllm("complete", *options, "-n", "20", "--json", *more) for more in (["--local"], [])
        )
        assert here.status == there.status == 0, (here.err, there.err)
        alike = ("model", "route", "text", "finish_reason", "prompt_tokens", "completion_tokens")
        assert {k: here.json[k] for k in alike} == {k: there.json[k] for k in alike}
        assert here.json["text"]
    assert greedy(live.store, PROMPT.encode(), 12) == subllm("complete", PROMPT, "-n", "12").out


def test_a_server_answers_without_this_process_loading_a_thing(live: Live) -> None:
    code = (
        "import sys; from subllm.cli import app\n"
        f"status = app.run(['complete', {PROMPT!r}, '-n', '3', '--json'])\n"
        "heavy = {'torch', 'numpy', 'fastapi', 'httpx', 'subllm.models.store.store'}\n"
        "heavy &= set(sys.modules)\n"
        "assert (status, heavy) == (0, set()), (status, heavy)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["text"]) == 3


def test_only_what_answering_needs_is_loaded_here(tiny: Store) -> None:
    code = (
        "import sys; from subllm.cli import app\n"
        f"status = app.run(['complete', {PROMPT!r}, '-n', '3'])\n"
        "heavy = {'torch', 'fastapi', 'uvicorn', 'transformers', 'rich'} & set(sys.modules)\n"
        "assert (status, heavy) == (0, set()), (status, heavy)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) == 3


def test_json_is_one_document(tiny: Store, subllm: Command) -> None:
    ran = subllm("complete", PROMPT, "-n", "5", "--json")
    assert ran.err == ""
    assert ran.json["text"] == greedy(tiny, PROMPT.encode(), 5)
    assert (ran.json["prompt_tokens"], ran.json["completion_tokens"]) == (len(PROMPT), 5)
    assert (ran.json["model"], ran.json["route"]) == (f"{BASE}-python", "content")
    assert ran.json["finish_reason"] == "length"
    assert 0 < ran.json["first_seconds"] <= ran.json["seconds"]


@pytest.mark.parametrize(
    ("name", "options", "model", "route"),
    [
        ("Fib.java", [], "java", "path"),
        ("fib.py", [], "python", "path"),
        ("fib.py", ["-l", "java"], "java", "language"),
        ("fib.txt", [], "python", "content"),
        ("fib.rs", [], "dense", "fallback"),
        ("fib.py", ["-m", f"{BASE}-java"], "java", "model"),
        ("Fib.java", ["-m", BASE], "java", "path"),
    ],
)
def test_who_answers_for_a_file(
    name: str,
    options: list[str],
    model: str,
    route: str,
    tiny: Store,
    tmp_path: Path,
    subllm: Command,
) -> None:
    file = tmp_path / name
    file.write_text("def fib(n):\n")
    ran = subllm("complete", "--file", str(file), "-n", "2", "--json", *options)
    assert (ran.json["model"], ran.json["route"]) == (f"{BASE}-{model}", route)
    assert ran.json["text"] == greedy(tiny, b"def fib(n):\n", 2)


def test_filling_in(tiny: Store, tmp_path: Path, subllm: Command) -> None:
    expected = greedy(tiny, fim("def a(", "return"), 6)
    assert subllm("complete", "def a(", "--suffix", "return", "-n", "6").out == expected
    assert subllm("complete", "def a(<FILL_ME>return", "--fim", "-n", "6").out == expected
    echoed = subllm("complete", "def a(<FILL_ME>return", "--fim", "--echo", "-n", "6").out
    assert echoed == f"def a({expected}return"
    assert subllm("complete", "def a(", "--echo", "-n", "6").out.startswith("def a(")


def test_markers_in_a_file_are_text(tiny: Store, subllm: Command) -> None:
    ran = subllm("complete", "x<|fim_middle|>", "--suffix", "y", "-n", "6")
    assert ran.out == greedy(tiny, fim("x<|fim_middle|>", "y"), 6)


@pytest.mark.parametrize("arguments", [["-"], []])
def test_a_pipe(
    arguments: list[str], tiny: Store, subllm: Command, piped: Callable[[bytes], None]
) -> None:
    piped(b"x = '\xff\xc3\xa9'\r\n")
    ran = subllm("complete", *arguments, "-n", "4")
    assert ran.out == greedy(tiny, "x = '�é'\r\n".encode(), 4)


def test_stop_and_seed(tiny: Store, subllm: Command) -> None:
    whole = greedy(tiny, PROMPT.encode(), 20)
    cut = whole[7:9]
    ran = subllm(
        "complete",
        PROMPT,
        "-n",
        "20",
        "--set",
        "stop=no such text",
        "--set",
        f"stop={cut}",
        "--json",
    )
    assert ran.json["text"] == whole[: whole.index(cut)]
    assert ran.json["finish_reason"] == "stop"
    drawn = [
        subllm("complete", PROMPT, "-n", "20", "--temperature", "1.5", "--set", f"seed={seed}").out
        for seed in ("1", "1", "2")
    ]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["complete", "x", "-m", "tiny-codr:1m"], 2, "unknown model 'tiny-codr:1m'; did you mean"),
        (["complete", "x" * 9000], 7, "this model's context is {context} tokens"),
        (["complete", ""], 2, "nothing to complete"),
        (["complete", "x", "--file", "y"], 2, "exclude each other"),
        (["complete", "--file", "absent.py"], 2, "absent.py cannot be read"),
        (["complete", "x", "--fim"], 2, "--fim needs <FILL_ME> once"),
        (["complete", "<FILL_ME>", "--fim", "--suffix", "y"], 2, "exclude each other"),
        (["complete", "x", *["--set", "stop=y"] * 17], 2, "at most 16 stops"),
        (["complete", "x", "-n", "0"], 2, "Invalid value"),
        (["chat", ""], 2, "nothing to answer"),
    ],
)
@pytest.mark.parametrize("by", ["here", "server"])
def test_errors_are_one_line(
    arguments: list[str],
    status: int,
    message: str,
    by: str,
    subllm: Command,
    request: pytest.FixtureRequest,
) -> None:
    request.getfixturevalue("tiny" if by == "here" else "live")
    ran = subllm(*arguments)
    assert (ran.status, ran.out) == (status, "")
    assert ran.err.startswith("error: ")
    assert message.format(context=1024 if by == "here" else 8192) in ran.err
    assert len(ran.err.splitlines()) == (2 if "See '" in ran.err else 1)


def test_a_damaged_model_is_one_line(tiny: Store, subllm: Command) -> None:
    own = tiny.blobs.path(tiny.model(f"{BASE}-dense").blobs.own)
    own.chmod(0o644)
    own.write_bytes(b"garbage")
    ran = subllm("complete", PROMPT)
    assert ran.status in (4, 5)
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") == 1


def test_a_bug_is_a_line_and_a_traceback_only_when_asked_for(
    tiny: Store, subllm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "load_engine", lambda *_, **__: 1 // 0)
    ran = subllm("complete", PROMPT)
    assert (ran.status, ran.out) == (7, "")
    warning, error = ran.err.splitlines()
    assert warning.startswith("warning: ")
    assert warning.endswith("ZeroDivisionError: integer division or modulo by zero")
    assert error.startswith(f"error: {BASE}-python could not be loaded")
    monkeypatch.setenv("SUBLLM_DEBUG", "1")
    assert "Traceback" in subllm("complete", PROMPT).err


def test_a_server_that_does_not_answer_is_passed_over(
    tiny: Store,
    free_port: Callable[[], int],
    subllm: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_client, "CONNECT_SECONDS", 0.2)
    with daemon.recorded(tiny.root, "127.0.0.1", free_port()) as me:
        ran = subllm("complete", PROMPT, "-n", "2")
    assert ran.status == 0
    assert (
        ran.err.splitlines()[0] == f"the server at {me.url} does not answer; answering without it"
    )


@pytest.mark.parametrize("by", ["here", "server"])
def test_ctrl_c_stops_it(by: str, live: Live) -> None:
    """The text so far stays, the exit code is 130, and the server goes on to other things."""
    more = ["--local"] if by == "here" else []
    with subprocess.Popen(
        [sys.executable, "-m", "subllm", "complete", PROMPT, "-n", "8000", "--echo", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(len(PROMPT) + 3).startswith(PROMPT.encode())
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == b"\n"
        assert process.wait() == 130
    if by == "server":
        asked = server_client.ServerClient(live.server.url)
        deadline = time.monotonic() + 120
        while any(m["active"] for m in asked.get("/health")["loaded"]):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_reader_that_leaves_is_no_error(live: Live) -> None:
    done = subprocess.run(
        f"{sys.executable} -m subllm complete 'def fib(n):' -n 1000 | head -c 3",
        shell=True,
        capture_output=True,
    )
    assert len(done.stdout) == 3
    assert b"Traceback" not in done.stderr
    assert b"error" not in done.stderr


def test_a_terminal_gets_no_control_characters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    output = ask.Output()
    output.write("a\x1b[2J\tb\r\n")
    output.write("c\x9bé")
    output.end()
    assert capsys.readouterr().out == "a�[2J\tb\nc�é\n"


def test_arguments_that_are_not_utf8(tiny: Store, subllm: Command) -> None:
    ran = subllm("complete", os.fsdecode(b"caf\xe9 \xc3\xa9"), "-n", "3")
    assert ran.out == greedy(tiny, "caf� é".encode(), 3)
