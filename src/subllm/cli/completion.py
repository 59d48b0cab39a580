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


# Bash splits words at the colon of a model's name and replaces only what follows it, which
# the stock script does not know. The fish form of the answer takes a line as it stands.
BASH_SCRIPT = r"""
_subllm_completion() {
    local IFS=$'\n'
    local line=${COMP_LINE:0:COMP_POINT}
    local word=${line##*[[:space:]=]}
    COMPREPLY=( $( env _TYPER_COMPLETE_ARGS="$line" _TYPER_COMPLETE_FISH_ACTION=get-args \
                   _SUBLLM_COMPLETE=complete_fish "$1" ) )
    COMPREPLY=( "${COMPREPLY[@]%%$'\t'*}" )
    if [[ $word == *:* && $COMP_WORDBREAKS == *:* ]]; then
        COMPREPLY=( "${COMPREPLY[@]#"${word%"${word##*:}"}"}" )
    fi
}

complete -o default -F _subllm_completion subllm
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
        if chosen == Shell.bash:
            path.write_text(BASH_SCRIPT)
        console.note(f"installed for {chosen} in {path}; open a new terminal to use it")
        return
    if chosen == Shell.bash:
        console.result(BASH_SCRIPT.strip())
        return
    console.result(
        shells.get_completion_script(
            prog_name="subllm", complete_var="_SUBLLM_COMPLETE", shell=chosen
        )
    )
