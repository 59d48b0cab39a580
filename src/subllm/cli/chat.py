"""`subllm chat`: a conversation on the terminal, or one turn in a pipe."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from subllm.cli import console
from subllm.cli.context import SPECULATION_HELP, complete_model, complete_speculation, open_context

if TYPE_CHECKING:
    from subllm.cli.conversation import Conversation

EXAMPLES = """
subllm chat
subllm chat "How do I reverse a list in Python?"
cat error.log | subllm chat --system "Explain the error."
"""

System = Annotated[
    str | None, typer.Option("--system", "-s", help="Instructions before everything.")
]
MaxTokens = Annotated[
    int | None, typer.Option("--max-tokens", "-n", min=1, help="Of one answer. Default: 1024.")
]
Temperature = Annotated[
    float | None, typer.Option(min=0, max=2, help="Default: 0, the likeliest token.")
]
OneJson = Annotated[bool, typer.Option("--json", help="Print the one answer as one JSON document.")]


def command(
    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="QUESTION",
            help="One question instead of a conversation. Without it, or for '-', a pipe is read.",
        ),
    ] = None,
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
    system: System = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    seed: Annotated[int | None, typer.Option(help="Draw the same tokens again.")] = None,
    speculation: Annotated[
        str | None, typer.Option(help=SPECULATION_HELP, autocompletion=complete_speculation)
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Answer in this process even if a server runs.")
    ] = False,
    json_output: OneJson = False,
) -> None:
    """Chat with a model: on a terminal a conversation, else one question and its answer.

    The question is the argument, or what a pipe brings.

    A single answer that ends before its end is an error (exit code 7): what came of it stays,
    --json says `"complete": false` and why.

    In a conversation /help lists what can be typed, Ctrl-C stops an answer and Ctrl-D ends.
    """
    from subllm.cli.ask import argument_text, open_client, read_text, sampling
    from subllm.cli.conversation import Conversation, converse
    from subllm.errors import UsageError

    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    question = None
    if prompt == "-" or (prompt is None and not sys.stdin.isatty()):
        question = read_text("-").strip()
    elif prompt is not None:
        question = argument_text(prompt).strip()
    if question == "" or (question is None and (json_output or not terminal)):
        raise UsageError("nothing to answer; give a question, as an argument or through a pipe")
    options = sampling(
        max_tokens=max_tokens, temperature=temperature, seed=seed, speculation=speculation
    )
    context = open_context()
    with open_client(context, local=local) as client:
        conversation = Conversation(client, options, model, language, system)
        if question is None:
            converse(conversation, context.settings.home)
        else:
            _answer(conversation, question, json_output)


def _answer(conversation: Conversation, question: str, json_output: bool) -> None:
    from subllm.cli.ask import Output, told_as_json

    with Output() as output, told_as_json(json_output):
        answer = conversation.ask(question, _nowhere if json_output else output.write)
    if json_output:
        console.emit_json(answer.document())
        return
    output.end()
    console.note(answer.line)


def _nowhere(_: str) -> None:
    pass
