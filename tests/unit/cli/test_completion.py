"""Completion in the shells themselves: names have a colon, which bash takes for a separator."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from subllm.cli import completion
from subllm.models.store.store import Store

from .samples import BASE, Ran

Command = Callable[..., Ran]

NAMES = [f"{BASE}-java", f"{BASE}-python"]


def in_shell(shell: str, script: str) -> list[str]:
    """The lines that a script prints."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [shell, "-c", script], capture_output=True, text=True, env={**os.environ, "PATH": path}
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("subllm complete --model tiny", NAMES),
        ("subllm complete 'def f(a): b' -m tiny-coder:1m-j", ["1m-java"]),
        ("subllm complete --model=tiny-coder:1m-p", ["1m-python"]),
        ("subllm show ", [BASE, *NAMES]),
        ("subllm compl", ["complete", "completion"]),
        ("subllm serve --det", ["--detach"]),
        ("subllm config vi", ["vim-llama"]),
        ("subllm service s", ["status"]),
        ("subllm cp tiny-coder:1m-j", ["1m-java"]),
        ("subllm run tiny-coder:1m-p", ["1m-python"]),
        ("subllm config aider --model tiny-coder:1m-j", ["1m-java"]),
        ("subllm serve --speculation n", ["ngram"]),
        ("subllm chat --speculation tiny-coder:1m-j", ["1m-java"]),
        ("subllm chat --speculation ", ["auto", "ngram", "off", *NAMES]),
    ],
)
def test_bash(line: str, expected: list[str], store: Store) -> None:
    """What bash then puts behind the last colon, where the line has one."""
    shown = in_shell(
        "bash",
        f"{completion.BASH_SCRIPT}\n"
        f'COMP_LINE="{line}"; COMP_POINT=${{#COMP_LINE}}; _subllm_completion subllm; '
        'printf "%s\\n" "${COMPREPLY[@]}"',
    )
    assert [name for name in shown if name] == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("subllm complete 'def f(a): b' -m tiny-coder:1m-j", [NAMES[0]]),
        ("subllm complete --model a", ["auto"]),
    ],
)
def test_fish(line: str, expected: list[str], store: Store) -> None:
    script = f'subllm completion fish | source; complete -C "{line}"'
    assert in_shell("fish", script) == expected


def test_zsh_quotes_colons(store: Store, subllm: Command) -> None:
    assert "compdef _subllm_completion subllm" in subllm("completion", "zsh").out
    answer = in_shell(
        "zsh",
        '_arguments() { print -r -- "$@" }; '
        'eval $(env _TYPER_COMPLETE_ARGS="subllm show tiny-coder:1m-j" '
        "_SUBLLM_COMPLETE=complete_zsh subllm)",
    )
    assert answer == [f'*: :(("{NAMES[0]}"))'.replace(":1m", r"\\:1m")]


def test_install_for_bash(
    store: Store, subllm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    ran = subllm("completion", "bash", "--install")
    assert ran.status == 0
    assert "open a new terminal" in ran.err
    (installed,) = (tmp_path / ".bash_completions").iterdir()
    assert installed.read_text().strip() == subllm("completion", "bash").out.strip()
    assert str(installed) in (tmp_path / ".bashrc").read_text()


def test_unknown_shell(subllm: Command) -> None:
    ran = subllm("completion", "ksh")
    assert (ran.status, ran.out) == (2, "")
    assert "'ksh'" in ran.err
