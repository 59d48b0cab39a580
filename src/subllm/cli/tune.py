"""`subllm tune`: a sub-model of the user's own code."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from subllm.cli import console
from subllm.cli.context import Context, complete_sub_model, open_context
from subllm.cli.losses import ENDED

if TYPE_CHECKING:
    from subllm.making.extraction.learn_on import LearnedReport
    from subllm.making.extraction.prepare_recover import PreparedRecovery
    from subllm.measuring.evaluation.own_text import OwnFigures, OwnText
    from subllm.models.store.manifest import ModelManifest, Perplexity

EXAMPLES = """
subllm tune qwen2.5-coder:0.5b-python --data ~/src/app --for 1h
subllm tune qwen2.5-coder:0.5b-python --data ~/src/app --for 500ktok
subllm tune qwen2.5-coder:0.5b-cpp --data ~/src/a=0.8,b.jsonl=0.2 --for 2h
subllm tune qwen2.5-coder:0.5b-python --data ~/src/app --for 1h \\
    --name qwen2.5-coder:0.5b-python-app
"""


def command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="The sub-model to start from; it stays as it is.",
            autocompletion=complete_sub_model,
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="Your code: a directory, a .jsonl file, made:NAME ('subllm data'), or a mix such "
            "as A=0.7,B=0.3; as --calibration of 'extract'.",
        ),
    ],
    budget: Annotated[
        str,
        typer.Option(
            "--for",
            metavar="DURATION|NMtok",
            help="How long: 90m, 2h, or tokens to learn from: 500ktok, 2Mtok.",
        ),
    ],
    new: Annotated[
        str,
        typer.Option(
            "--name", metavar="NEW", help="The new sub-model's name. Default: NAME-tuned."
        ),
    ] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "",
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON document.")
    ] = False,
) -> None:
    """Make a sub-model of your own code from one in the store, at low priority.

    It keeps the weights that NAME keeps and learns the next tokens of your code, mixed with what
    the dense base says of them; three tenths of the text are the language's own, so that nothing
    else is forgotten. An eighth of your files (of a small directory: of parts of files) is never
    learned from. What tells that eighth's next tokens best becomes NEW, at the end and, where
    it takes long, before.

    The end shows what it brought: perplexity of the eighth, and how many of 40 of its lines are
    filled in exactly as they are, before and after; and what it cost the language.

    Ctrl-C stops with what was reached, packed and stored; the same command goes on with what is
    left of its --for, also after a kill, and once that is used up for as long again. What it
    needs for that stays in the store as long as NEW. NEW says where your code lay, and may well
    remember lines of it: mind whom you give it to.
    """
    from subllm.cli import recover_job
    from subllm.cli.made_text import with_made
    from subllm.cli.progress_bars import RichProgress
    from subllm.making.recovery.budget import parse_budget

    time, context = parse_budget(budget), open_context()
    settings, store = context.settings, context.store
    data = with_made(settings.home, data)
    store.model(name)
    with RichProgress() as progress:
        from subllm.making.extraction.made import tuned_by
        from subllm.making.extraction.prepare_recover import RecoverOptions
        from subllm.making.extraction.prepare_tune import Tuning, prepare_tune
        from subllm.making.extraction.tune import tune
        from subllm.measuring.evaluation.own_text import load_own_text

        options = RecoverOptions(device=device or settings.device, offline=settings.offline)
        wanted = Tuning(name, data, time, new)
        prepared = prepare_tune(store, wanted, options, context.catalog, progress)
        language = prepared.manifest.language
        made = tuned_by(name, data, budget, prepared.name, language)
        prepared = replace(prepared, made=made)
        own = load_own_text(
            store, name, data, prepared.manifest.language, catalog=context.catalog,
            offline=settings.offline, progress=progress,
        )  # fmt: skip
        recover_job.refuse_second(settings.home, prepared.name)
        _announce(prepared, budget)
        asked = recover_job.Stop(progress.note)
        with asked.listening(), recover_job.recorded(settings.home, prepared.name, budget):
            report = tune(store, prepared, progress, asked, settings.threads)
        figures = _measure(context, report, name, own, progress) if report.digest else {}
    if json_output:
        console.emit_json(_document(report, prepared, data, own, figures))
    else:
        _show(report, prepared, own, figures)


def _announce(prepared: PreparedRecovery, budget: str) -> None:
    data = prepared.job.data
    start = "goes on where it was" if prepared.resumes else f"starts from {prepared.origin}"
    console.note(
        f"{prepared.name}: {start}, learns for {budget} from {data.source} "
        f"({data.unique_tokens:,} tokens, in several forms), {prepared.device} in "
        f"{prepared.compute}; {data.heldout.tokens.size:,} tokens are held out to judge it by; "
        "Ctrl-C stops with what was reached"
    )


def _measure(
    context: Context, report: LearnedReport, name: str, own: OwnText, progress: Any
) -> dict[str, OwnFigures]:
    """Of the model before and the new one, on the engine that serves them."""
    from subllm.measuring.evaluation.bench import open_bench
    from subllm.measuring.evaluation.own_text import measure_own_text

    with open_bench(context.store, context.settings, progress) as bench:
        models = {"before": name, "after": report.name}
        return {
            when: measure_own_text(bench.engines, model, own, progress)
            for when, model in models.items()
        }


def _show(
    report: LearnedReport,
    prepared: PreparedRecovery,
    own: OwnText,
    figures: dict[str, OwnFigures],
) -> None:
    tokens = report.run.curve[-1].tokens
    rows = [("name", report.name), ("ended", f"{ENDED[report.run.stopped]}, {tokens:,} tokens")]
    if not report.better:
        served = "as before" if report.digest else "nothing: there is no such model"
        rows.append(("served", f"{served}; no checkpoint was better on your held-out text"))
    if figures:
        before, after = figures["before"], figures["after"]
        rows.append(
            (
                "your perplexity",
                f"{before.perplexity:.3f} -> {after.perplexity:.3f}, on {after.tokens:,} tokens "
                "that were not learned from",
            )
        )
        if own.holes:
            how = "filled in" if own.form == "fim" else "gone on with"
            rows.append(
                (
                    f"lines {how}",
                    f"{before.exact} -> {after.exact} of {after.holes} exactly as they are in "
                    "your held-out text",
                )
            )
        rows += [
            (f"cost, {domain}", _cost(value, prepared.manifest.perplexity.get(domain)))
            for domain, value in report.manifest.perplexity.items()
        ]
    rows.append(("time", f"{console.duration(report.run.seconds)} in all runs of this state"))
    rows.append(("peak memory", console.size(report.peak_memory_bytes)))
    rows.append(("state", f"{console.size(report.state_bytes)}, kept to go on with"))
    console.facts(rows)
    if report.digest:
        console.note(f'try it: subllm complete --model {report.name} "..."')


def _cost(value: Perplexity, before: Perplexity | None) -> str:
    """`perplexity 3.459 -> 3.512 (dense 2.888), agreement with the dense base 83.6% -> 82.9%`"""
    first = f"{before.after:.3f} -> " if before else ""
    said = f"perplexity {first}{value.after:.3f} (dense {value.before:.3f})"
    if value.agreement is None:
        return said
    earlier = f"{before.agreement:.1%} -> " if before and before.agreement is not None else ""
    return f"{said}, agreement with the dense base {earlier}{value.agreement:.1%}"


def _document(
    report: LearnedReport,
    prepared: PreparedRecovery,
    data: str,
    own: OwnText,
    figures: dict[str, OwnFigures],
) -> dict[str, Any]:
    made = report.manifest.tunings[-1] if report.digest else None
    return {
        "name": report.name,
        "digest": report.digest,
        "origin": prepared.origin,
        "data": data,
        "better": report.better,
        "stopped": report.run.stopped,
        "run": report.run.model_dump(mode="json"),
        "tuning": made.model_dump(mode="json") if made else None,
        "own": {
            "form": own.form,
            "before": asdict(figures["before"]) if figures else None,
            "after": asdict(figures["after"]) if figures else None,
        },
        "cost": {
            "before": _perplexity(prepared.manifest),
            "after": _perplexity(report.manifest) if report.digest else None,
        },
        "state_bytes": report.state_bytes,
        "peak_memory_bytes": report.peak_memory_bytes,
    }


def _perplexity(manifest: ModelManifest) -> dict[str, Any]:
    return {domain: value.model_dump() for domain, value in manifest.perplexity.items()}
