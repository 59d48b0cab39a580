"""`subllm complete`: code that goes on where the prompt ends."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from subllm.cli import console
from subllm.cli.context import complete_model, open_context
from subllm.cli.moved import moved_into

EXAMPLES = """
subllm complete "def fib(n):"
subllm complete --file src/app.py --max-tokens 64 >> src/app.py
git diff | subllm complete --language python
subllm complete --file app.py --fim   fill in where it says <FILL_ME>
subllm complete "def add(a, b):" --suffix "return total"
"""

MARK = "<FILL_ME>"

_SET = ("stop", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "speculation")
MOVED = {
    "--" + key.replace("_", "-"): moved_into(
        "--set", f"--set {key}={{value}}", "subllm complete --help", str
    )
    for key in _SET
}


def command(
    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="PROMPT", help="What to continue. Without it, or for '-', a pipe is read."
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="Continue this file; its name tells the language."),
    ] = None,
    suffix: Annotated[
        str | None, typer.Option(help="What follows: fill in between the prompt and this.")
    ] = None,
    fim: Annotated[
        bool, typer.Option("--fim", help=f"Fill in where the prompt says {MARK}.")
    ] = False,
    language: Annotated[
        str | None, typer.Option("--language", "-l", help="Choose the sub-model of this language.")
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="A model of 'subllm list', a base, or auto.",
            autocompletion=complete_model,
        ),
    ] = "auto",
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", "-n", min=1, help="Default: 256.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, max=2, help="Default: 0, the likeliest token.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Once for each: stop (end before this text; several add up), top_p (nucleus), "
            "top_k (likeliest tokens), min_p (this share of the likeliest, at least), "
            "repetition_penalty (above 1: repeat less), seed (draw the same tokens again), "
            "speculation (what drafts: auto, ngram, off or a model).",
        ),
    ] = None,
    echo: Annotated[
        bool, typer.Option("--echo", help="Print prompt and suffix around the completion.")
    ] = False,
    local: Annotated[
        bool, typer.Option("--local", help="Answer in this process even if a server runs.")
    ] = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the answer as one JSON document.")
    ] = False,
) -> None:
    """Complete code. The text goes to stdout, what answered and how fast to stderr.

    A running server of this store answers; without one the model is loaded for this one
    answer. Ctrl-C stops. An answer that ends before its end is an error (exit code 7): what
    came of it stays, --json says `"complete": false` and why.
    """
    from subllm.cli.ask import COMPLETIONS, Output, ask, open_client, sampling, told_as_json
    from subllm.cli.sampling_set import Sampling
    from subllm.cli.set_option import apply_set

    text, after = _prompt(prompt, file, suffix, fim)
    set_by_hand = apply_set(Sampling, settings or []).model_dump(exclude_none=True)
    body = sampling(max_tokens=max_tokens, temperature=temperature, **set_by_hand)
    body |= {"model": model, "prompt": text}
    if after:
        body["suffix"] = after
    by_path = language is None and file is not None and _language_of(file)
    if stated := language or by_path:
        body["language"] = stated
    with (
        Output() as output,
        told_as_json(json_output),
        open_client(open_context(), local=local) as client,
    ):
        write = _nowhere if json_output else output.write
        if echo:
            write(text)
        answer = ask(client, COMPLETIONS, body, write)
        if echo:
            write(after)
    if by_path and answer.route == "language":
        answer = _replace_route(answer)
    if json_output:
        console.emit_json(answer.document())
        return
    output.end()
    console.note(answer.line)


def _prompt(
    prompt: str | None, file: Path | None, suffix: str | None, fim: bool
) -> tuple[str, str]:
    """What comes before and after the completion."""
    from subllm.cli.ask import argument_text, read_text
    from subllm.errors import UsageError

    if prompt is not None and file is not None:
        raise UsageError("a prompt and --file exclude each other; leave one out")
    if prompt is None and file is None and sys.stdin.isatty():
        raise UsageError("nothing to complete; give a prompt, a pipe, or --file FILE")
    if file is not None:
        text = read_text(file)
    elif prompt is None or prompt == "-":
        text = read_text("-")
    else:
        text = argument_text(prompt)
    if not (text or suffix):
        raise UsageError("nothing to complete; the prompt is empty")
    if not fim:
        return text, argument_text(suffix or "")
    if suffix is not None:
        raise UsageError("--fim and --suffix exclude each other; leave one out")
    if text.count(MARK) != 1:
        raise UsageError(
            f"--fim needs {MARK} once in the prompt, it is there {text.count(MARK)} times"
        )
    before, _, after = text.partition(MARK)
    return before, after


def _language_of(file: Path) -> str | None:
    from subllm.languages import of_path

    return of_path(file.name)


def _replace_route(answer: Any) -> Any:
    """The language was given, but by the file's name and not by the person."""
    from dataclasses import replace

    return replace(answer, route="path")


def _nowhere(_: str) -> None:
    pass
