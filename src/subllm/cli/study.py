"""`subllm study`: the paper's tables from sub-models of your own, in one command."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from subllm.cli import console, study_tables
from subllm.cli.context import Context, complete_base, open_context
from subllm.cli.eval_options import (
    DIRECTORY,
    Batch,
    Format,
    K,
    MaxTokens,
    Samples,
    Seed,
    Temperature,
    TopP,
    Unsafe,
    drawn,
    parse_format,
)

if TYPE_CHECKING:
    from subllm.evaluation.study.options import StudyOptions
    from subllm.evaluation.study.run import Planned
    from subllm.report.study.records import Study

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
subllm study --out study --report-only
"""


def command(
    out: Annotated[
        Path,
        typer.Option(
            help="Directory of records, tables and pictures. What is there already is kept: runs "
            "with other options add to it."
        ),
    ],
    base: Annotated[
        list[str] | None,
        typer.Option(
            help="Base model, fetched when missing; several as a,b. Default: qwen2.5-coder:0.5b.",
            autocompletion=complete_base,
        ),
    ] = None,
    calibration: Annotated[
        list[str] | None,
        typer.Option(
            help="A sub-model for each of a,b,...: a language with a pack, general, hub:SET, or "
            "LANGUAGE=SOURCE (a directory, a file, a mix; one in each --calibration). "
            "Default: general and the four languages."
        ),
    ] = None,
    tasks: Annotated[
        str,
        typer.Option(
            help="Of 'subllm eval', several as a,b: humaneval-x, humaneval, mbpp, perplexity, "
            "csr, math, translation, gsm8k, ..."
        ),
    ] = "humaneval-x",
    methods: Annotated[
        str, typer.Option(help="How weights are chosen, several as a,b: wanda, ria, magnitude.")
    ] = "wanda",
    patterns: Annotated[
        str, typer.Option(help="Sparsity patterns, several as a,b: 8:16, 2:4, 50%, ...")
    ] = "8:16",
    language: Annotated[
        str,
        typer.Option(help="Ask benchmarks in these only: a,b. Default: in all that the data has."),
    ] = "",
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="File with a benchmark, once for each language if need be; TASK=PATH for one "
            "task. Without it, data comes from the hub."
        ),
    ] = None,
    k: K = "1",
    samples: Samples = None,
    temperature: Temperature = None,
    top_p: TopP = 1.0,
    max_tokens: MaxTokens = 512,
    seed: Seed = 0,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Only the first problems; of domains, so many questions."),
    ] = None,
    prompt: Format = "raw",
    values: Annotated[str, typer.Option(help="How weights are stored: bf16, int8, int4.")] = "int8",
    head: Annotated[
        str, typer.Option(help="How head and embedding are stored: bf16, int8, int4.")
    ] = "int8",
    sequences: Annotated[int, typer.Option(min=1, help="Calibration sequences.")] = 128,
    seq_len: Annotated[int, typer.Option(min=8, help="Tokens in each of them.")] = 512,
    records: Annotated[
        Path | None,
        typer.Option(
            help="Directory of every completion and verdict, shared with 'subllm eval'. "
            "Default: evaluations/ in the store."
        ),
    ] = None,
    batch: Batch = 24,
    unsafe: Unsafe = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say what would be done and how long it would take.")
    ] = False,
    report_only: Annotated[
        bool,
        typer.Option(
            "--report-only", help="Only write tables and pictures again, from the records in --out."
        ),
    ] = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print all cells as one JSON document.")
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
    from subllm.cli.progress_bars import RichProgress
    from subllm.errors import UsageError
    from subllm.evaluation.engines import Engines
    from subllm.evaluation.study.run import plan_study, report_again, run_study
    from subllm.report.canvas import library
    from subllm.report.study.report import RECORDS

    out = out.expanduser()
    if report_only:
        if not (out / RECORDS).is_file():
            raise UsageError(f"{out} has no {RECORDS}; run 'subllm study' there first")
        with RichProgress() as progress:
            study, files = report_again(out, progress)
        _show(study, files, json_output)
        return
    for module in ("matplotlib.figure", "treescope"):  # not found missing after hours
        library(module)
    context = open_context()
    options = _options(
        base or [], calibration or [], tasks, methods, patterns, language, data or [], k,
        samples=samples, temperature=temperature, top_p=top_p, max_tokens=max_tokens, seed=seed,
        limit=limit, prompt=prompt, values=values, head=head, sequences=sequences,
        length=seq_len, together=batch,
    )  # fmt: skip
    settings = context.settings
    with (
        RichProgress() as progress,
        Engines(
            context.store,
            backend=settings.backend,
            device=settings.device,
            threads=settings.threads,
            kv_type=settings.kv_type,
        ) as engines,
    ):
        if not plan:
            _fetch(context, options.bases, progress)
        planned = plan_study(
            context.store,
            context.catalog,
            options,
            out,
            engines.tools(),
            progress,
            device=settings.device,
            threads=settings.threads,
            offline=settings.offline,
        )
        if plan:
            _show_plan(planned, json_output)
            return
        study_tables.announce(planned.plan)
        from subllm.evaluation.study.bench import Bench

        directory = (records or settings.home / DIRECTORY).expanduser()
        with Bench(
            context.store,
            engines,
            directory,
            progress,
            threads=settings.threads,
            offline=settings.offline,
            unsafe=unsafe,
        ) as bench:
            try:
                study, files = run_study(planned, bench, out, _told(options, out))
            except KeyboardInterrupt:
                progress.note(
                    "stopped; the same command goes on from here, --report-only shows what there is"
                )
                raise
    _show(study, files, json_output)


def _options(
    bases: Sequence[str],
    calibrations: Sequence[str],
    tasks: str,
    methods: str,
    patterns: str,
    language: str,
    data: Sequence[str],
    k: str,
    *,
    samples: int | None,
    temperature: float | None,
    prompt: str,
    **others: Any,
) -> StudyOptions:
    from subllm.cli.extract import DEFAULT_BASE
    from subllm.evaluation.study.loading import task_names
    from subllm.evaluation.study.options import StudyOptions, parse_calibrations, parse_data
    from subllm.routing.languages import GENERAL, LANGUAGES, parse_languages

    names = _parts(tasks)
    files, own = parse_data(data, task_names(names))
    sampling = drawn(k, samples, temperature)
    return StudyOptions(
        bases=tuple(part for text in bases for part in _parts(text)) or (DEFAULT_BASE,),
        calibrations=parse_calibrations(calibrations or [GENERAL, *LANGUAGES]),
        tasks=names,
        methods=_parts(methods),
        patterns=_parts(patterns),
        languages=parse_languages(language),
        files=tuple(files),
        own=own,
        samples=sampling.samples,
        ks=sampling.ks,
        temperature=sampling.temperature,
        form=parse_format(prompt),
        **others,
    )


def _parts(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _fetch(context: Context, bases: Sequence[str], progress: Any) -> None:
    from subllm.cli.bases import ensure_base

    for base in bases:
        ensure_base(context, base, progress)


def _told(options: StudyOptions, out: Path) -> str:
    """The command that asks for this, without directories of this machine."""
    from subllm.evaluation.study.options import StudyOptions

    usual = StudyOptions(options.bases, options.calibrations, options.tasks)
    calibrations = [calibration.text for calibration in options.calibrations]
    words = ["subllm", "study", "--base", ",".join(options.bases)]
    plain = [text for text in calibrations if "=" not in text]
    words += ["--calibration", ",".join(plain)] if plain else []
    for text in calibrations:
        words += ["--calibration", text] if "=" in text else []
    words += ["--tasks", ",".join(Path(task).name for task in options.tasks)]
    words += ["--methods", ",".join(options.methods), "--patterns", ",".join(options.patterns)]
    for path in options.files:
        words += ["--data", path.name]
    for task, path in options.own.items():
        words += ["--data", f"{task}={path.name}"]
    for name, value, default in (
        ("language", ",".join(options.languages), ""),
        ("k", ",".join(map(str, options.ks)), "1"),
        ("samples", options.samples, usual.samples),
        ("temperature", options.temperature, usual.temperature),
        ("top-p", options.top_p, usual.top_p),
        ("max-tokens", options.max_tokens, usual.max_tokens),
        ("seed", options.seed, usual.seed),
        ("limit", options.limit, usual.limit),
        ("format", options.form, usual.form),
        ("values", options.values, usual.values),
        ("head", options.head, usual.head),
        ("sequences", options.sequences, usual.sequences),
        ("seq-len", options.length, usual.length),
        ("batch", options.together, usual.together),
    ):
        if value != default:
            words += [f"--{name}", str(value)]
    words += ["--out", out.name if out.is_absolute() or ".." in out.parts else str(out)]
    return shlex.join(words)


def _show_plan(planned: Planned, json_output: bool) -> None:
    if json_output:
        console.emit_json(study_tables.plan_document(planned.plan))
    else:
        study_tables.show_plan(planned.plan)


def _show(study: Study, files: Sequence[Path], json_output: bool) -> None:
    if json_output:
        console.emit_json(study_tables.document(study, files))
        return
    study_tables.show(study)
    for file in files:
        console.note(f"wrote {file}")
