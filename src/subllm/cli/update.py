"""`subllm update`: make again what is not up to date."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from subllm.cli import console
from subllm.cli.context import Context, complete_name, open_context
from subllm.cli.outdated import document, search, show, takes

if TYPE_CHECKING:
    from subllm.making.extraction.outdated import Outdated

EXAMPLES = """
subllm outdated                              what it would do, and why
subllm update qwen2.5-coder:0.5b-python
subllm update --all --background             at low priority
subllm update --status
subllm update --stop
"""


def command(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME", help="Bases or models of the store.", autocompletion=complete_name
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All that 'subllm outdated' lists.")
    ] = False,
    in_background: Annotated[
        bool,
        typer.Option(
            "--background", "-b", help="Start it in the background, at low priority, and return."
        ),
    ] = False,
    status: Annotated[
        bool, typer.Option("--status", help="Say how an update in the background stands instead.")
    ] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop it, as Ctrl-C does, instead.")] = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON document.")
    ] = False,
) -> None:
    """Fetch again and extract again what 'subllm outdated' lists, as it was asked for before.

    A name moves to the new model when that is whole, at once; until then the old one is served,
    and it stays in the store until 'subllm gc'. A base comes before its models. Ctrl-C stops;
    the same command goes on where it was, also after a kill. What 'subllm recover' taught a model
    after its extraction is not made again, so such a model is left out of --all.

    Nothing is updated unless it is asked for, or auto_update = true in config.toml says so; then
    a server does it when nobody uses it.
    """
    from subllm.errors import UsageError

    if status + stop + (bool(names) or everything) != 1 or (names and everything):
        raise UsageError("name what to update, or say --all; 'subllm outdated' lists what could be")
    if in_background and (status or stop):
        raise UsageError("--background starts an update; leave it out of --status and --stop")
    context = open_context()
    home = context.settings.home
    if status:
        _status(home, json_output)
    elif stop:
        _stop(home, json_output)
    elif in_background:
        for name in names or ():
            context.store.resolve(name)
        _launch(home, names or ["--all"], json_output)
    else:
        _update(context, names or [], json_output)


def _update(context: Context, names: list[str], json_output: bool) -> None:
    from subllm.cli import update_job
    from subllm.errors import StoreError
    from subllm.making.extraction.outdated import in_order

    home = context.settings.home
    update_job.refuse_second(home)
    failed: list[str] = []
    done: list[str] = []
    with update_job.recorded(home, ", ".join(names) or "all"):
        findings = search(context, names)
        if not json_output:
            show(findings)
        steps = in_order(findings.found, named=bool(names))
        for number, step in enumerate(steps, 1):
            if step.after and step.after in failed:
                failed.append(step.name)
                continue
            console.note(f"\n{number} of {len(steps)}: {_said(step)}")
            (failed if update_job.run_step(step.how, home) else done).append(step.name)
    if json_output:
        console.emit_json({**document(findings), "updated": done, "failed": failed})
    elif done:
        console.result(f"updated: {', '.join(done)}")
    if failed:
        raise StoreError(f"not updated: {', '.join(failed)}; why, is said above")


def _said(step: Outdated) -> str:
    long = f", {takes(step)}" if step.seconds else ""
    return f"{step.name}{long}: {step.command}"


def _launch(home: Path, arguments: list[str], json_output: bool) -> None:
    from subllm.cli import update_job

    update_job.refuse_second(home)
    job = update_job.launch(home, arguments)
    log = update_job.log_path(home)
    if json_output:
        console.emit_json({"pid": job.pid, "for": job.budget, "log": str(log)})
        return
    console.facts(
        [
            ("updating", f"{job.budget}, pid {job.pid}"),
            ("log", str(log)),
            ("stop", "subllm update --stop"),
        ]
    )


def _status(home: Path, json_output: bool) -> None:
    from subllm.cli import background, update_job

    job, log = update_job.find(home), update_job.log_path(home)
    said = background.last_line(log) if log.exists() else ""
    if json_output:
        running = {"pid": job.pid, "started": job.started, "for": job.budget} if job else None
        console.emit_json({"running": running, "log": str(log) if said else None, "said": said})
        return
    console.facts(
        [
            ("running", f"for {job.budget}, pid {job.pid}" if job else "no"),
            ("said last", said),
            ("log", str(log) if said else ""),
        ]
    )


def _stop(home: Path, json_output: bool) -> None:
    from subllm.cli import jobs, update_job
    from subllm.errors import StoreError

    job = update_job.find(home)
    if job is None:
        raise StoreError("no update runs; 'subllm update --all' starts one")
    if not jobs.stop(job):
        raise StoreError(
            f"process {job.pid} goes on; kill it: the same update goes on where it was"
        )
    if json_output:
        console.emit_json({"pid": job.pid})
    else:
        console.result(f"stopped the update (pid {job.pid})")
