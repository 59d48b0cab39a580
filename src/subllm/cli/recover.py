"""`subllm recover`: let a stored sub-model learn on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from subllm.cli import console
from subllm.cli.context import Context, complete_name, open_context
from subllm.cli.losses import ENDED, perplexity_rows, problem_rows, recovery_rows
from subllm.cli.moved import in_recipe
from subllm.cli.recipes import RecipeOption, asked_for
from subllm.cli.teachers import taught_by

if TYPE_CHECKING:
    from pathlib import Path

    from subllm.making.extraction.learn_on import LearnedReport
    from subllm.making.extraction.prepare_recover import PreparedRecovery
    from subllm.making.extraction.recipes.read import Asked
    from subllm.measuring.evaluation.kept import Kept
    from subllm.models.store.manifest import ModelManifest

EXAMPLES = """
subllm recover qwen2.5-coder:0.5b-python --for 2h
subllm recover qwen2.5-coder:0.5b-python --for 2Mtok --background
subllm recover qwen2.5-coder:0.5b-python --status
subllm recover qwen2.5-coder:0.5b-python --stop
subllm recover qwen2.5-coder:0.5b-python --for 90m --calibration ~/src/app
subllm recover qwen2.5-coder:0.5b-python --for 90m --data made:python=0.3
subllm recover qwen2.5-coder:0.5b-cpp --for 1h --recipe editor
"""
MOVED = {
    "--teacher": in_recipe("[recovery] teacher = {value}"),
    "--no-problems": in_recipe("[report] problems = false"),
}


@dataclass(frozen=True)
class _How:
    """Options, "" for those that were left out, and the recipe."""

    calibration: str
    data: str
    device: str
    recipe: Asked


def command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A sub-model in the store.", autocompletion=complete_name
        ),
    ],
    budget: Annotated[
        str,
        typer.Option(
            "--for",
            metavar="DURATION|NMtok",
            help="How long: 90m, 2h, or tokens to learn from: 500ktok, 2Mtok.",
        ),
    ] = "",
    in_background: Annotated[
        bool, typer.Option("--background", "-b", help="Start it in the background and return.")
    ] = False,
    status: Annotated[
        bool, typer.Option("--status", help="Say how its recovery stands instead.")
    ] = False,
    stop: Annotated[
        bool, typer.Option("--stop", help="Stop its recovery, as Ctrl-C does, instead.")
    ] = False,
    calibration: Annotated[
        str,
        typer.Option(
            help="Text to learn from, as for 'extract'. Default: from where the sub-model's "
            "calibration came."
        ),
    ] = "",
    data: Annotated[
        str,
        typer.Option(
            metavar="PATH[=SHARE]",
            help="Text that joins it: a directory of code, a .jsonl file or made:NAME ('subllm "
            "data'), several as A=0.2,B=0.1 with their shares of all. Default share: half.",
        ),
    ] = "",
    recipe: RecipeOption = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "",
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON document.")
    ] = False,
) -> None:
    """Let what a sub-model kept learn on from its dense base, at low priority.

    What is best on held-out text becomes the served sub-model, at the end and, where it takes
    long, before: packing it takes a tenth of the time. 'subllm gc' frees the one before. Ctrl-C
    stops with what was reached, packed and stored; the same command goes on with what is left
    of its --for, also after a kill. What it needs for that stays in the store as long as the
    sub-model ('subllm show' says how much), also after another --for, and what an extraction
    learned before it rounded its values. At the end 40 small problems tell what was kept, as
    for 'extract'; not after Ctrl-C, nor in the background. Of a recipe it takes [recovery], but for
    how long, and [report] problems.
    """
    from subllm.errors import UsageError

    if status + stop + bool(budget) != 1 or (in_background and not budget):
        raise UsageError("say one of --for, --status and --stop; --background goes with --for")
    by = asked_for(recipe)
    context = open_context()
    context.store.model(name)
    how = _How(calibration, data, device, by)
    if status:
        _status(context, name, json_output)
    elif stop:
        _stop(context.settings.home, name, json_output)
    elif in_background:
        _launch(context.settings.home, name, budget, how, json_output)
    else:
        _recover(context, name, budget, how, json_output)


def _recover(
    context: Context,
    name: str,
    text: str,
    how: _How,
    json_output: bool,
) -> None:
    from subllm.cli import recover_job
    from subllm.cli.bases import ensure_base
    from subllm.cli.made_text import with_made
    from subllm.cli.problems import ask_problems, interrupted
    from subllm.cli.progress_bars import RichProgress
    from subllm.making.recovery.budget import parse_budget

    budget, settings = parse_budget(text), context.settings
    kept, stopped = None, False
    recover_job.refuse_second(settings.home, name)
    with RichProgress() as progress:
        from subllm.making.extraction.prepare_recover import RecoverOptions, prepare_recover
        from subllm.making.extraction.recover import recover

        learning, teacher = how.recipe.recipe.recovery, how.recipe.recipe.recovery.teacher
        options = RecoverOptions(
            calibration=with_made(settings.home, how.calibration),
            data=with_made(settings.home, how.data),
            teacher=ensure_base(context, teacher, progress) if teacher else "",
            device=how.device or settings.device,
            recipe=learning.learning,
            offline=settings.offline,
        )
        prepared = prepare_recover(context.store, name, budget, options, context.catalog, progress)
        _announce(prepared)
        asked = recover_job.Stop(progress.note)
        # Listening first: whoever finds the record may stop it at once.
        with asked.listening(), recover_job.recorded(settings.home, name, text):
            report = recover(context.store, prepared, progress, asked, settings.threads)
        if how.recipe.recipe.report.problems and not asked():
            try:
                kept = ask_problems(context, name, progress)
            except KeyboardInterrupt:  # what took an hour is told all the same
                progress.note(interrupted(name))
                stopped = True
    if json_output:
        console.emit_json(_document(report, kept))
    else:
        _show(report, kept)
    if stopped:
        raise KeyboardInterrupt


def _announce(prepared: PreparedRecovery) -> None:
    data = prepared.job.data
    start = "starts from the served values"
    if prepared.resumes:
        start = "goes on where it was"
    elif prepared.unrounded is not None:
        start = "starts from what the served values were rounded from"
    console.note(
        f"{prepared.name}: recovery for {prepared.job.budget} on {data.source} "
        f"({data.unique_tokens:,} tokens, in several forms){taught_by(prepared.job)}, "
        f"{prepared.device} in {prepared.compute}; {start}; Ctrl-C stops with what was reached"
    )


def _show(report: LearnedReport, kept: Kept | None) -> None:
    manifest = report.manifest
    why = ENDED[report.run.stopped]
    rows = [("name", report.name), ("ended", f"{why}, {report.run.curve[-1].tokens:,} tokens")]
    if not report.better:
        rows.append(("served", "as before: no checkpoint was better on held-out text"))
    rows += problem_rows(manifest, kept)
    rows += perplexity_rows(manifest, kept)
    rows += recovery_rows(manifest)
    rows.append(("time", f"{console.duration(report.run.seconds)} in all runs of this state"))
    rows.append(("peak memory", console.size(report.peak_memory_bytes)))
    rows.append(("state", f"{console.size(report.state_bytes)}, kept to go on with"))
    console.facts(rows)


def _document(report: LearnedReport, kept: Kept | None) -> dict[str, Any]:
    return {
        "name": report.name,
        "digest": report.digest,
        "better": report.better,
        "stopped": report.run.stopped,
        "run": report.run.model_dump(mode="json"),
        **_served(report.manifest),
        "problems": kept.document() if kept else None,
        "state_bytes": report.state_bytes,
        "peak_memory_bytes": report.peak_memory_bytes,
    }


def _served(manifest: ModelManifest) -> dict[str, Any]:
    return {
        "recovery": manifest.recovery.model_dump(mode="json") if manifest.recovery else None,
        "perplexity": {d: p.model_dump() for d, p in manifest.perplexity.items()},
    }


def _launch(home: Path, name: str, budget: str, how: _How, json_output: bool) -> None:
    from subllm.cli import recover_job
    from subllm.making.recovery.budget import parse_budget

    parse_budget(budget)
    recover_job.refuse_second(home, name)
    recipe = how.recipe.recipe.but({"report": {"problems": False}})
    path = recover_job.write_recipe(home, name, recipe)
    arguments = ["--for", budget, "--recipe", str(path)]
    for option in ("calibration", "data", "device"):
        if value := getattr(how, option):
            arguments += [f"--{option}", value]
    job = recover_job.launch(home, name, arguments)
    log = recover_job.log_path(home, name)
    if json_output:
        console.emit_json({"name": name, "pid": job.pid, "log": str(log)})
        return
    console.facts(
        [
            ("recovering", f"{name} for {budget}, pid {job.pid}"),
            ("log", str(log)),
            ("stop", f"subllm recover {name} --stop"),
        ]
    )


def _status(context: Context, name: str, json_output: bool) -> None:
    from subllm.cli import background, recover_job

    home, manifest = context.settings.home, context.store.model(name)
    job, log = recover_job.find(home, name), recover_job.log_path(home, name)
    said = background.last_line(log) if log.exists() else ""
    if json_output:
        running = {"pid": job.pid, "started": job.started, "for": job.budget} if job else None
        document = {"name": name, "running": running, "log": str(log) if said else None}
        console.emit_json({**document, "said": said, **_served(manifest)})
        return
    rows = [
        ("name", name),
        ("running", f"for {job.budget}, pid {job.pid}" if job else "no"),
        ("said last", said),
        ("log", str(log) if said else ""),
    ]
    rows += recovery_rows(manifest) or [("recovered", "not yet")]
    console.facts(rows)


def _stop(home: Path, name: str, json_output: bool) -> None:
    from subllm.cli import jobs, recover_job
    from subllm.errors import StoreError

    job = recover_job.find(home, name)
    if job is None:
        raise StoreError(f"no recovery of {name} runs; 'subllm recover {name} --for 2h' starts one")
    console.note("it ends after its step, with what was reached")
    if not jobs.stop(job):
        raise StoreError(f"process {job.pid} goes on; see --status, or kill it: it can be resumed")
    if json_output:
        console.emit_json({"name": name, "pid": job.pid})
    else:
        console.result(f"stopped the recovery of {name} (pid {job.pid})")
