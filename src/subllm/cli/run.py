"""`subllm run`: chat with a model, making it first where it is missing."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from subllm.cli import chat, console
from subllm.cli.chat import MaxTokens, OneJson, System, Temperature
from subllm.cli.context import Context, complete_model, open_context

EXAMPLES = """
subllm run python                       the Python sub-model
subllm run qwen2.5-coder:0.5b           a base, routed among its sub-models
subllm run java "What is a record?"     one question
"""


@dataclass(frozen=True)
class Wanted:
    """name   what to ask
    steps  command lines that make it first
    why    what they do, for a person; "" where there are none
    """

    name: str
    language: str | None = None
    steps: tuple[tuple[str, ...], ...] = ()
    why: str = ""


def command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|LANGUAGE",
            help="A model, a base, or a language such as python.",
            autocompletion=complete_model,
        ),
    ],
    prompt: Annotated[
        str | None, typer.Argument(metavar="QUESTION", help="One question instead of a chat.")
    ] = None,
    system: System = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    json_output: OneJson = False,
) -> None:
    """Chat with a model, as 'subllm chat' does; what is missing is fetched and made first.

    What will be done is said before it starts. A sub-model is extracted with --fast, in about
    two minutes: a first look, much of whose language is lost. 'subllm recover' gives a good
    part of it back, 'subllm extract LANGUAGE' makes it so from the start. A base that has no
    model is made servable as it is, unpruned.
    """

    context = open_context()
    wanted = plan(context, name)
    if wanted.steps:
        console.note(wanted.why)
        for step in wanted.steps:
            _do(step)
    chat.command(
        prompt,
        language=wanted.language,
        model=wanted.name,
        system=system,
        max_tokens=max_tokens,
        temperature=temperature,
        json_output=json_output,
    )


def plan(context: Context, name: str) -> Wanted:
    """What `name` means here. Raises UnknownNameError and UsageError."""
    from subllm.cli.local_router import served_models
    from subllm.errors import UnknownNameError
    from subllm.languages import canonical
    from subllm.making.calibration.packs import pack_names
    from subllm.models.store.names import DENSE, base_name, kind_of, model_name, split_model_name
    from subllm.serving.server.config import ServerConfig

    served = served_models(context.store).models()
    bases = {model.manifest.base.name for model in served.values()}
    if name == "auto" or name in served or name in bases:
        return Wanted(name)
    if ":" not in name:
        language = canonical(name)
        usual = ServerConfig.default_base
        having = sorted(n for n, model in served.items() if model.manifest.language == language)
        here = [n for n in having if n.startswith(f"{usual}-")] or having
        if here:
            return Wanted(here[0])
        if language not in (languages := pack_names()):
            known = sorted({*languages, *served, *bases})
            raise UnknownNameError("model or language", name, known, "see 'subllm list --catalog'")
        name = model_name(usual, language)
    base = base_name(name)
    if base not in context.catalog.bases and base not in context.store.names():
        raise UnknownNameError("base", base, context.catalog.bases, "see 'subllm list --catalog'")
    fetched = "" if base in context.store.names() else f"fetch {base}, "
    if kind_of(name) == "base" or split_model_name(name).language == DENSE:
        why = f"{name} is not here: this will {fetched}make it servable as it is, unpruned"
        return Wanted(f"{base}-{DENSE}", steps=(("add", base),), why=_first(why))
    parts = split_model_name(name)
    step: tuple[str, ...] = ("extract", parts.language, "--base", base, "--fast")
    if parts.tag:
        step += ("--tag", parts.tag)
    why = (
        f"{name} is not here: this will {fetched}extract it (--fast, about two minutes, a first "
        "look: 'subllm recover' makes it better)"
    )
    return Wanted(name, steps=(step,), why=_first(why))


def _first(text: str) -> str:
    return f"{text}; Ctrl-C stops."


def _do(step: tuple[str, ...]) -> None:
    """Another command's work; what it prints is no part of this one's result."""
    from subllm.cli.commands import COMMANDS, LazyCommands

    made: Any = LazyCommands(COMMANDS)[step[0]]
    with contextlib.redirect_stdout(sys.stderr):
        made.main(list(step[1:]), prog_name=f"subllm {step[0]}", standalone_mode=False)
