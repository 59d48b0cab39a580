"""`subllm study`: the paper's tables from sub-models of your own, in one command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from subllm.cli import study_tables
from subllm.cli.context import open_context
from subllm.cli.moved import moved_into, toml, toml_list
from subllm.cli.set_option import apply_set

EXAMPLES = """
subllm study --show > study.toml
subllm study study.toml --out study --plan
subllm study study.toml --out study
subllm study --set limit=20 --out study
subllm study study.toml --set k=1,10 --set samples=10 --out study
subllm study --out study --report-only
"""

_LISTS = ("base", "calibration", "models", "tasks", "methods", "patterns", "language", "data")
_WORDS = ("base-name", "values", "head", "sequences", "seq-len", "samples", "temperature")
_MORE = ("top-p", "max-tokens", "seed", "limit", "batch")
_KEYS = {name: name.replace("-", "_") for name in (*_LISTS, *_WORDS, *_MORE)} | {"format": "prompt"}
MOVED = {
    f"--{name}": moved_into(
        "the study's file or --set",
        f"{key} = {{value}}",
        "subllm study --show",
        toml_list if name in _LISTS else toml,
    )
    for name, key in _KEYS.items()
} | {
    "--k": moved_into(
        "the study's file or --set", "k = {value}", "subllm study --show", "[{}]".format
    )
}


def command(
    *,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", help="TOML file that describes the study. Default: what --show prints."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Directory of records, tables and pictures. What is there already is kept: runs "
            "of other studies add to it."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A key of the file that is other in this run, lists as a,b; once for each.",
        ),
    ] = None,
    show: Annotated[
        bool,
        typer.Option(
            "--show", help="Only print the study: the built-in one with a word on every key."
        ),
    ] = False,
    records: Annotated[
        Path | None,
        typer.Option(
            help="Directory of every completion and verdict, shared with 'subllm eval'. "
            "Default: evaluations/ in the store."
        ),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say what would be done and how long it would take.")
    ] = False,
    report_only: Annotated[
        bool,
        typer.Option(
            "--report-only", help="Only write tables and pictures again, from the records in --out."
        ),
    ] = False,
    unsafe: Annotated[
        bool,
        typer.Option("--unsafe", help="Run programs although this machine cannot contain them."),
    ] = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the results as one JSON document.")
    ] = False,
) -> None:
    """Measure sub-models of several calibrations on several tasks, as in the paper.

    Every base with every method, pattern and calibration, and the dense base, on every task.
    Missing sub-models are extracted, those in the store are used. Writes Table IV (sub-models
    by languages), Table III (domains), Figure 2 and the comparison of masks as Markdown, CSV
    and PNG, beside the paper's figures, from JSON lines that need no models.

    Stopped halfway, the same command goes on where it was. Runs with other options add to the
    same directory: greedy pass@1 for all models first, say, then 10 samples for some. A model
    on a task is measured once, as long as model, data and options are the same.
    """
    from subllm.cli import console
    from subllm.cli.bases import ensure_base
    from subllm.cli.progress_bars import RichProgress
    from subllm.cli.study_options import told
    from subllm.errors import UsageError
    from subllm.measuring.evaluation.bench import open_bench
    from subllm.measuring.evaluation.study.file import StudyFile, default_text, read_study_file
    from subllm.measuring.evaluation.study.run import plan_study, report_again, run_study
    from subllm.measuring.report.canvas import library
    from subllm.measuring.report.study.report import RECORDS

    if show and file is None and not settings:
        console.result(default_text(), newline=False)
        return
    read = read_study_file(file).model_dump(exclude_unset=True) if file else {}
    study_file = apply_set(StudyFile, settings or [], read)
    if show:
        console.result(study_file.to_toml(), newline=False)
        return
    if out is None:
        raise UsageError("say where records and tables go: --out DIR")
    out = out.expanduser()
    if report_only:
        if not (out / RECORDS).is_file():
            raise UsageError(f"{out} has no {RECORDS}; run 'subllm study' there first")
        with RichProgress() as progress:
            study, files = report_again(out, progress)
        study_tables.show(study, files, json_output)
        return
    for module in ("matplotlib.figure", "treescope"):  # not found missing after hours
        library(module)
    context = open_context()
    options = study_file.options()
    if options.models:
        of_models = (context.store.model(name).base.name for name in options.models)
        options = replace(options, bases=tuple(dict.fromkeys(of_models)))
    if study_file.base_name and len(options.bases) > 1:
        raise UsageError("base_name is for one base; fetch the others with 'subllm pull' first")
    with (
        RichProgress() as progress,
        open_bench(
            context.store, context.settings, progress, records=records, unsafe=unsafe
        ) as bench,
    ):
        if not plan:
            bases = (
                ensure_base(context, base, progress, study_file.base_name) for base in options.bases
            )
            options = replace(options, bases=tuple(dict.fromkeys(bases)))
        planned = plan_study(bench, context.catalog, options, out)
        if plan:
            study_tables.show_plan(planned.plan, json_output)
            return
        study_tables.announce(planned.plan)
        try:
            study, files = run_study(planned, bench, out, told(options, out))
        except KeyboardInterrupt:
            progress.note(
                "stopped; the same command goes on from here, --report-only shows what there is"
            )
            raise
    study_tables.show(study, files, json_output)
