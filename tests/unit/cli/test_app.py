"""The frame of the command line: help, laziness, exit codes."""

from __future__ import annotations

import shlex
import subprocess
import sys
import types
from pathlib import Path

import pytest

from subllm import __version__
from subllm.cli import app, commands
from subllm.errors import LockedError, StoreError, SubllmError, UsageError


def install_command(monkeypatch: pytest.MonkeyPatch, command: object) -> None:
    """Put `command` in the place of the module of `subllm gc`."""
    module = types.ModuleType("subllm.cli.gc")
    module.command = command  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "subllm.cli.gc", module)


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["--help"]) == 0
    out = capsys.readouterr().out
    for info in commands.COMMANDS:
        assert f"  {info.name}" in out
        assert info.summary in out
    for word in ("First steps:", "subllm extract python", "Exit codes:", "SUBLLM_HOME"):
        assert word in out
    assert max(map(len, out.splitlines())) <= 80


def test_no_arguments_show_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run([]) == 0
    assert "First steps:" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["--version"]) == 0
    assert capsys.readouterr().out == f"subllm {__version__}\n"


def test_help_imports_no_command() -> None:
    code = (
        "import sys; from subllm.cli import app; status = app.run(['--help'])\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'rich', 'httpx', 'psutil'} & set(sys.modules)\n"
        "commands = {'subllm.cli.pull', 'subllm.cli.complete'} & set(sys.modules)\n"
        "assert (status, heavy, commands) == (0, set(), set()), (status, heavy, commands)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_unknown_command_suggests(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["lst"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: No such command 'lst'. Did you mean 'list'")


def test_missing_argument_points_to_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["show"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: Missing argument")
    assert "See 'subllm show --help'." in err


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UsageError("a; do b"), 2),
        (StoreError("a; do b"), 4),
        (LockedError("a; do b"), 4),
        (SubllmError("a; do b"), 1),
    ],
)
def test_errors_are_one_line_with_their_exit_code(
    error: SubllmError,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def command() -> None:
        raise error

    install_command(monkeypatch, command)
    assert app.run(["gc"]) == status
    captured = capsys.readouterr()
    assert captured.err == "error: a; do b\n"
    assert captured.out == ""


def test_unexpected_error_says_how_to_see_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        raise ZeroDivisionError("two\nlines")

    install_command(monkeypatch, command)
    assert app.run(["gc"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: unexpected ZeroDivisionError: two lines; set SUBLLM_DEBUG=1")
    assert err.count("\n") == 1

    monkeypatch.setenv("SUBLLM_DEBUG", "1")
    assert app.run(["gc"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_interrupt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise KeyboardInterrupt

    install_command(monkeypatch, command)
    assert app.run(["gc"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_broken_pipe_is_quiet() -> None:
    code = (
        "import sys; from subllm.cli import app, console, commands; import types\n"
        "module = types.ModuleType('subllm.cli.gc')\n"
        "module.command = lambda: [console.result('x' * 1000) for _ in range(1000)]\n"
        "sys.modules['subllm.cli.gc'] = module\n"
        "sys.exit(app.run(['gc']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() in (1, app.BROKEN_PIPE)


def shell(command: str) -> subprocess.CompletedProcess[str]:
    """`subllm command`, with the redirections in it."""
    line = f"exec {shlex.quote(sys.executable)} -m subllm {command}"
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, input="")


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        ("list <&-", 0, "The store is empty"),
        ("list >&-", 0, "The store is empty"),
        ("list <&- >&- 2>&-", 0, ""),
        ("completion bash >&-", 0, ""),
        ("complete <&-", 2, "error: nothing to complete"),
        ("chat <&-", 2, "error: nothing to answer"),
        ("route - <&- 2>&-", 3, ""),
    ],
)
def test_closed_streams(command: str, status: int, message: str) -> None:
    done = shell(command)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == bool(message)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a system without /dev/full")
@pytest.mark.parametrize("command", ["--help", "completion bash", "list --json"])
def test_output_that_does_not_fit(command: str) -> None:
    done = shell(f"{command} >/dev/full")
    assert done.returncode == 1
    assert done.stderr == (
        "error: the output cannot be written (No space left on device); write it elsewhere\n"
    )


@pytest.mark.parametrize("info", commands.COMMANDS, ids=lambda info: info.name)
def test_every_command_has_help_that_fits(
    info: commands.CommandInfo, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run([info.name, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Usage: subllm {info.name}")
    assert "Examples:" in out
    assert max(map(len, out.splitlines())) <= 80
