"""`subllm study`: the paper's tables from sub-models of your own, in one command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from subllm.cli import study_tables
from subllm.cli.context import open_context
from subllm.cli.eval_options import Json, TaskChoices
from subllm.cli.option_groups import grouped
from subllm.cli.study_options import StudyChoices, study_options, told

EXAMPLES = """
subllm study --calibration general,python,java,cpp,javascript --out study
subllm study --calibration python,java --limit 20 --out study --plan
subllm study --calibration general,python --language python \\
    --k 1,10 --samples 10 --out study
subllm study --patterns 8:16,2:4 --methods wanda,magnitude \\
    --calibration python --tasks humaneval,perplexity --out study
subllm study --calibration hub:py_alpaca,hub:math_qa,hub:c4 \\
    --tasks humaneval,math,csr --out domains
subllm study --calibration python=~/src/app --tasks perplexity --out app
subllm study --models qwen2.5-coder:0.5b-python \\
    --models qwen2.5-coder:0.5b-dense --out mine
subllm study --out study --report-only
"""


@grouped
def command(
    *,
    out: Annotated[
        Path,
        typer.Option(
            help="Directory of records, tables and pictures. What is there already is kept: runs "
            "with other options add to it."
        ),
    ],
    grid: StudyChoices,
    choices: TaskChoices,
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
    json_output: Json = False,
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
    from subllm.cli.bases import ensure_base
    from subllm.cli.progress_bars import RichProgress
    from subllm.errors import UsageError
    from subllm.measuring.evaluation.bench import open_bench
    from subllm.measuring.evaluation.study.run import plan_study, report_again, run_study
    from subllm.measuring.report.canvas import library
    from subllm.measuring.report.study.report import RECORDS

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
    options = study_options(grid, choices)
    if options.models:
        of_models = (context.store.model(name).base.name for name in options.models)
        options = replace(options, bases=tuple(dict.fromkeys(of_models)))
    if grid.base_name and len(options.bases) > 1:
        raise UsageError("--base-name is for one base; fetch the others with 'subllm pull' first")
    with (
        RichProgress() as progress,
        open_bench(
            context.store, context.settings, progress, records=records, unsafe=choices.unsafe
        ) as bench,
    ):
        if not plan:
            bases = (ensure_base(context, base, progress, grid.base_name) for base in options.bases)
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
