"""`subllm data`: text to learn from, written on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from subllm.cli import console
from subllm.cli.commands import verbatim
from subllm.cli.context import Context, complete_model, open_context

if TYPE_CHECKING:
    from subllm.making.textmaking.made import Made
    from subllm.making.textmaking.make import MakeOptions
    from subllm.making.textmaking.tasks import Form
    from subllm.progress import Progress

EXAMPLES = """
subllm data make python --tokens 200k
subllm data make java --for 20m --formats function,fim
subllm data make cpp --tokens 100k --seeds ~/src/engine --out engine.jsonl
subllm data list
subllm recover qwen2.5-coder:0.5b-python --for 1h --data made:python=0.3
"""
MAKE_EXAMPLES = """
subllm data make python --tokens 200k
subllm data make java --for 20m --formats function,fim
subllm data make cpp --tokens 100k --seeds ~/src/engine --out engine.jsonl
subllm data make python --tokens 50k --benchmarks HumanEval.jsonl.gz
"""
LIST_EXAMPLES = """
subllm data list
subllm data list --json
"""
SHOW_EXAMPLES = """
subllm data show python
subllm data show engine.jsonl
"""

_TOKENS = 100_000
"""That a text is to have where nobody says."""

JsonOutput = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]

group = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=verbatim("Examples:", EXAMPLES),
)


@group.callback()
def command() -> None:
    """Text to learn from, which a dense model writes on this machine.

    What 'make' writes is rows of JSON, for --calibration of 'extract' and --data of 'recover' and
    'tune': as made:NAME, or the file, alone or mixed with other text by shares.
    """


def complete_made(incomplete: str) -> list[str]:
    from subllm.making.textmaking.made import all_made

    names = (path.stem for path in all_made(open_context().settings.home))
    return [name for name in names if name.startswith(incomplete)]


@group.command("make", epilog=verbatim("Examples:", MAKE_EXAMPLES))
def make(
    language: Annotated[
        str,
        typer.Argument(metavar="LANGUAGE", help="python, java, cpp, javascript or general."),
    ] = "python",
    tokens: Annotated[
        str,
        typer.Option(
            metavar="N",
            help="Tokens that the file is to have in the end: 200k, 1M. Default: 100k, or with "
            "--for as many as there will be.",
        ),
    ] = "",
    duration: Annotated[
        str, typer.Option("--for", metavar="DURATION", help="Stop after so long: 20m, 1h30m.")
    ] = "",
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What writes: a model of the store, or a base, whose dense model is made where it "
            "is missing. Default: that of the language's sub-model.",
            autocompletion=complete_model,
        ),
    ] = "",
    formats: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="What is written, of file (a file goes on), function (a body, after comment and "
            "signature), fim (holes), chat, tests and edit. Default: all.",
        ),
    ] = "",
    seeds: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="A directory of your code: half of the tasks come from it. An eighth of its "
            "files is left out, the one that 'tune' judges by.",
        ),
    ] = None,
    benchmarks: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Problems (.jsonl, .json, .gz, .parquet) that no text may share ten words with, "
            "beside HumanEval and its translations, which come with subllm; may be repeated.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A .jsonl file. Default: <home>/data/LANGUAGE.jsonl."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of tasks and draws.")] = 0,
    together: Annotated[
        int, typer.Option(min=1, max=128, help="Texts that are written at once.")
    ] = 48,
    json_output: JsonOutput = False,
) -> None:
    """Let a dense model write text to learn from, many texts at once.

    It gets many small tasks, in every format that is served. Kept is what ended, parses, is
    nearly no other text and shares no ten words in a row with a benchmark. All answers stay in
    FILE's .answers.xz. Ctrl-C keeps what there is; the same command goes on, up to its --tokens.
    """
    from subllm.cli.progress_bars import RichProgress
    from subllm.making.recovery.budget import parse_duration
    from subllm.making.textmaking.make import MakeOptions, check
    from subllm.making.textmaking.make import make as let_make
    from subllm.measuring.evaluation.builtin import builtin_texts

    context = open_context()
    options = MakeOptions(
        language=language,
        out=_path(context, language) if out is None else out.expanduser(),
        problems=tuple(builtin_texts()),
        tokens=_tokens(tokens, timed=bool(duration)),
        seconds=parse_duration(duration) if duration else None,
        forms=_forms(formats),
        seeds=None if seeds is None else seeds.expanduser(),
        benchmarks=tuple(path.expanduser() for path in benchmarks or ()),
        seed=seed,
        together=together,
    )
    check(options)
    with RichProgress() as progress:
        name = _writer(context, model, language, progress)
        _announce(name, options)
        made = let_make(context.store, name, options, context.settings.threads, progress)
    if json_output:
        console.emit_json(made.document())
    else:
        _show(made)
        if made.added:
            given = made.path if out else f"made:{language}"
            console.note(f"learn from it: subllm recover NAME --for 1h --data {given}=0.3")
    if made.interrupted:
        raise KeyboardInterrupt


@group.command("list", epilog=verbatim("Examples:", LIST_EXAMPLES))
def list_made(json_output: JsonOutput = False) -> None:
    """List the text that was made here without --out."""
    from subllm.making.textmaking.made import all_made, read

    home = open_context().settings.home
    found = [read(path) for path in all_made(home)]
    if json_output:
        console.emit_json([made.document() for made in found])
    elif not found:
        console.note("No text was made yet. Start with: subllm data make python")
    else:
        rows = [
            (m.path.stem, m.language, f"{sum(m.texts.values()):,}", f"{sum(m.tokens.values()):,}",
             console.size(m.size), m.by)
            for m in found
        ]  # fmt: skip
        columns: list[str | tuple[str, console.Align]] = ["NAME", "LANGUAGE"]
        columns += [("TEXTS", "right"), ("TOKENS", "right"), ("SIZE", "right"), "BY"]
        console.table(columns, rows)


@group.command("show", epilog=verbatim("Examples:", SHOW_EXAMPLES))
def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE",
            help="A name of 'subllm data list', or a file that was made.",
            autocompletion=complete_made,
        ),
    ],
    json_output: JsonOutput = False,
) -> None:
    """Show what a made text holds, and what was left out of it."""
    from subllm.making.textmaking.made import read

    path = Path(name).expanduser()
    made = read(path if path.suffix == ".jsonl" else _path(open_context(), name))
    if json_output:
        console.emit_json(made.document())
    else:
        _show(made)


def _path(context: Context, name: str) -> Path:
    from subllm.making.textmaking.made import data_directory

    return data_directory(context.settings.home) / f"{name}.jsonl"


def _writer(context: Context, model: str, language: str, progress: Progress) -> str:
    """The model that writes, made where it is missing."""
    from subllm.cli.bases import ensure_base
    from subllm.cli.extract import DEFAULT_BASE
    from subllm.models.store.names import DENSE, kind_of, model_name, split_model_name

    names = context.store.names()
    if model and (model in names and kind_of(model) == "model"):
        return model
    base = model
    if not base:
        models = [split_model_name(name) for name in names if kind_of(name) == "model"]
        known = [model.base for model in models if model.language == language]
        base = known[0] if known else DEFAULT_BASE
    dense = model_name(base, DENSE) if kind_of(base) == "base" else ""
    if dense in names:
        return dense
    if model and model not in names and model not in context.catalog.bases:
        context.store.model(model)  # says what names there are
    from subllm.making.extraction.dense import add_dense

    base = ensure_base(context, base, progress)
    progress.note(f"making {model_name(base, DENSE)}, which writes")
    return add_dense(context.store, base, progress, threads=context.settings.threads).name


def _announce(name: str, options: MakeOptions) -> None:
    until = [f"{options.tokens:,} tokens"] if options.tokens is not None else []
    if options.seconds is not None:
        until.append(console.duration(options.seconds))
    console.note(
        f"{options.out}: {name} writes {', '.join(options.forms)} until {' or '.join(until)}; "
        "Ctrl-C keeps what there is"
    )


def _show(made: Made) -> None:
    texts, tokens = sum(made.texts.values()), sum(made.tokens.values())
    rows = [
        ("file", str(made.path)),
        ("texts", f"{texts:,} with {tokens:,} tokens, {console.size(made.size)}"),
    ]
    rows += [
        (f"  {form}", f"{count:,} with {made.tokens[form]:,} tokens")
        for form, count in sorted(made.texts.items())
    ]
    left_out = sum(made.rejected.values())
    if left_out:
        share = left_out / made.answers
        reasons = ", ".join(
            f"{reason} {count / made.answers:.1%}"
            for reason, count in sorted(made.rejected.items(), key=lambda one: -one[1])
        )
        rows.append(("left out", f"{share:.0%} of {made.answers:,} answers: {reasons}"))
    rows.append(("written by", made.by))
    if made.added:
        speed = f"{made.added / made.seconds:,.0f} tokens/s" if made.seconds else ""
        rows.append(("time", f"{console.duration(made.seconds)}, {speed}"))
    console.facts(rows)


def _forms(text: str) -> tuple[Form, ...]:
    from subllm.errors import UnknownNameError
    from subllm.making.textmaking.tasks import FORMS

    asked = [part.strip() for part in text.split(",") if part.strip()]
    for one in asked:
        if one not in FORMS:
            raise UnknownNameError("format", one, FORMS, f"formats are {', '.join(FORMS)}")
    return tuple(form for form in FORMS if form in asked) or FORMS


def _tokens(text: str, *, timed: bool) -> int | None:
    from subllm.making.recovery.budget import parse_tokens

    if text:
        return parse_tokens(text)
    return None if timed else _TOKENS
