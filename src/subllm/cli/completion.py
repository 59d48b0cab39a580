"""`subllm completion`: completion of commands, options and model names in the shell."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from subllm.cli import console

EXAMPLES = """
subllm completion --install               for the shell that you are in
subllm completion zsh                     print zsh's script
source <(subllm completion bash)          only in this session
"""


class Shell(enum.StrEnum):
    """Shells that can be served."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"
    powershell = "powershell"


def command(
    shell: Annotated[
        Shell | None,
        typer.Argument(
            metavar="SHELL",
            help="bash, zsh, fish or powershell. Default: the one that runs this command.",
        ),
    ] = None,
    install: Annotated[
        bool, typer.Option("--install", help="Add it to the shell's start-up file.")
    ] = False,
) -> None:
    """Print the completion script of your shell, or install it.

    Completes commands, options and the names of models in the store.
    """
    from typer import _completion_shared as shells

    from subllm.errors import UsageError

    chosen = shell.value if shell else shells._get_shell_name()
    if chosen not in list(Shell):
        raise UsageError(f"cannot tell which shell this is; say one of {', '.join(Shell)}")
    if install:
        _, path = shells.install(shell=chosen, prog_name="subllm", complete_var="_SUBLLM_COMPLETE")
        console.note(f"installed for {chosen} in {path}; open a new terminal to use it")
        return
    console.result(
        shells.get_completion_script(
            prog_name="subllm", complete_var="_SUBLLM_COMPLETE", shell=chosen
        )
    )
