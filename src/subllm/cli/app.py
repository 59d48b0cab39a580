"""Entry point: `subllm`. Parses, runs one command, and turns errors into exit codes."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from typing import Annotated, Any, NoReturn

import typer

from subllm import SubllmError, __version__
from subllm.cli import console
from subllm.cli.commands import LazyGroup, verbatim

INTERRUPTED = 130  # as shells report a process ended by SIGINT
BROKEN_PIPE = 141  # ... and by SIGPIPE
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # of stdout, where no file is named

FIRST_STEPS = """
subllm pull qwen2.5-coder:0.5b       fetch a base model (0.5 or 1 GB)
subllm extract python                make its Python sub-model
subllm complete "def fib(n):"        try it here
subllm serve                         serve it to your editor
"""
SETTINGS = """
SUBLLM_HOME      where models are stored
SUBLLM_OFFLINE   1: never touch the network
SUBLLM_DEBUG     1: show a traceback with an error
All settings can also stand in config.toml; see 'subllm serve --help'.
"""
EXIT_CODES = """
0  done                      6  extraction failed
1  unexpected error          7  generation failed
2  wrong usage or setting    8  server missing or unreachable
3  no model, or not fetched  9  evaluation failed
4  store                   130  interrupted (Ctrl-C)
5  malformed weights or packed file
"""

app = typer.Typer(
    cls=LazyGroup,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\n\n".join(
        (
            verbatim("First steps:", FIRST_STEPS),
            verbatim("Environment:", SETTINGS),
            verbatim("Exit codes:", EXIT_CODES),
        )
    ),
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Coding models made for your language and your machine.

    subllm extracts from a code model the part that serves one programming language, packs
    it small, and serves it on this machine to your editor or your terminal.
    """
    if version:
        typer.echo(f"subllm {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; never raises."""
    try:
        status = _invoke(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()  # the reader has gone (`subllm list | head -1`)
        return BROKEN_PIPE
    except OSError as error:
        _discard_output()
        console.error(f"the output cannot be written ({error.strerror}); write it elsewhere")
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return status


def _invoke(arguments: list[str]) -> int:
    try:
        status: Any = typer.main.get_command(app).main(
            arguments, prog_name="subllm", standalone_mode=False
        )
    except SubllmError as error:
        _show_traceback()
        console.error(str(error))
        return error.exit_code
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        console.error(error.format_message())
        if context is not None:
            console.note(f"See '{context.command_path} --help'.")
        return error.exit_code
    except typer.Abort:
        return INTERRUPTED
    except (BrokenPipeError, KeyboardInterrupt):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _FULL and error.filename is None:
            raise
        if not _show_traceback():
            reason = " ".join(str(error).split()) or "no message"
            console.error(
                f"unexpected {type(error).__name__}: {reason}; "
                "set SUBLLM_DEBUG=1 to see where, and please report it"
            )
        return 1
    return status if isinstance(status, int) else 0


def _show_traceback() -> bool:
    """Print the traceback of the error being handled when SUBLLM_DEBUG asks for it."""
    if console.debugging():
        traceback.print_exc()
        return True
    return False


def _discard_output() -> None:
    """Keep the interpreter from complaining when it flushes stdout at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_streams() -> None:
    """Stand-ins for streams that the caller closed (`<&-`): Python has None for them, and a file
    opened later would get their place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            mode = "r" if number == 0 else "w"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123


def main() -> NoReturn:
    """Console script."""
    _open_streams()
    if "_SUBLLM_COMPLETE" in os.environ:
        from typer._completion_classes import completion_init

        completion_init()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A model may write what the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="replace")
    status = run(sys.argv[1:])
    if status == INTERRUPTED:
        print(file=sys.stderr)  # the shell's prompt starts on a line of its own
    sys.exit(status)
