"""What `subllm study` is asked for, from its options and back."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from subllm.cli.bases import BASE_NAME_HELP
from subllm.cli.context import complete_base, complete_name
from subllm.cli.eval_options import TaskChoices
from subllm.making.extraction.defaults import DEFAULT_SAMPLES

if TYPE_CHECKING:
    from subllm.measuring.evaluation.study.options import StudyOptions


@dataclass(frozen=True)
class StudyChoices:
    """Models, tasks and data, as typed."""

    base: Annotated[
        list[str] | None,
        typer.Option(
            help="Base model, fetched when missing; several as a,b. Default: qwen2.5-coder:0.5b.",
            autocompletion=complete_base,
        ),
    ] = None
    base_name: Annotated[str, typer.Option(metavar="FAMILY:SIZE", help=BASE_NAME_HELP)] = ""
    calibration: Annotated[
        list[str] | None,
        typer.Option(
            help="A sub-model for each of a,b,...: a language with a pack, general, hub:SET, or "
            "LANGUAGE=SOURCE (a directory, a file, a mix; one in each --calibration). "
            "Default: general and the four languages."
        ),
    ] = None
    models: Annotated[
        list[str] | None,
        typer.Option(
            help="Models of 'subllm list', several as a,b, instead of what --base, --calibration, "
            "--methods and --patterns would make: sub-models that were recovered, say, with the "
            "dense one beside them.",
            autocompletion=complete_name,
        ),
    ] = None
    tasks: Annotated[
        str,
        typer.Option(
            help="Of 'subllm eval', several as a,b: humaneval-x, humaneval, mbpp, perplexity, "
            "agreement, csr, math, translation, gsm8k, ..."
        ),
    ] = "humaneval-x"
    methods: Annotated[
        str,
        typer.Option(
            help="How weights are chosen, several as a,b: wanda, ria, sparsegpt, dpruner, maskllm, "
            "magnitude."
        ),
    ] = "wanda"
    patterns: Annotated[
        str, typer.Option(help="Sparsity patterns, several as a,b: 8:16, 2:4, 50%, ...")
    ] = "8:16"
    language: Annotated[
        str,
        typer.Option(help="Ask benchmarks in these only: a,b. Default: in all that the data has."),
    ] = ""
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="File with a benchmark, once for each language if need be; TASK=PATH for one "
            "task. Without it, data comes from the hub."
        ),
    ] = None
    values: Annotated[str, typer.Option(help="How weights are stored: bf16, int8, int4.")] = "int8"
    head: Annotated[
        str, typer.Option(help="How head and embedding are stored: bf16, int8, int4.")
    ] = "int8"
    sequences: Annotated[int, typer.Option(min=1, help="Calibration sequences.")] = DEFAULT_SAMPLES
    seq_len: Annotated[int, typer.Option(min=8, help="Tokens in each of them.")] = 512


def study_options(grid: StudyChoices, choices: TaskChoices) -> StudyOptions:
    """Raises UsageError for what is malformed or names nothing."""
    from subllm.cli.extract import DEFAULT_BASE
    from subllm.languages import GENERAL, LANGUAGES, parse_languages
    from subllm.measuring.evaluation.study.options import (
        StudyOptions,
        parse_calibrations,
        parse_data,
    )

    tasks = _parts(grid.tasks)
    files, own = parse_data(grid.data or [], tasks)
    return StudyOptions(
        bases=tuple(part for text in grid.base or [] for part in _parts(text)) or (DEFAULT_BASE,),
        calibrations=parse_calibrations(grid.calibration or [GENERAL, *LANGUAGES]),
        tasks=tasks,
        how=choices.task_options(parse_languages(grid.language), files, own),
        methods=_parts(grid.methods),
        patterns=_parts(grid.patterns),
        values=grid.values,
        head=grid.head,
        sequences=grid.sequences,
        length=grid.seq_len,
        models=tuple(part for text in grid.models or [] for part in _parts(text)),
    )


def _parts(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def told(options: StudyOptions, out: Path) -> str:
    """The command that asks for this, without directories of this machine."""
    from subllm.measuring.evaluation.study.options import StudyOptions

    usual = StudyOptions(options.bases, options.calibrations, options.tasks)
    how, plainly = options.how, usual.how
    calibrations = [calibration.text for calibration in options.calibrations]
    words = ["subllm", "study"]
    tasks = ["--tasks", ",".join(Path(task).name for task in options.tasks)]
    if options.models:
        words += ["--models", ",".join(options.models), *tasks]
    else:
        words += ["--base", ",".join(options.bases)]
        plain = [text for text in calibrations if "=" not in text]
        words += ["--calibration", ",".join(plain)] if plain else []
        for text in calibrations:
            words += ["--calibration", text] if "=" in text else []
        words += tasks
        words += ["--methods", ",".join(options.methods), "--patterns", ",".join(options.patterns)]
        words += ["--sequences", str(options.sequences)]  # whatever its default will be
    for path in how.files:
        words += ["--data", path.name]
    for task, path in how.own.items():
        words += ["--data", f"{task}={path.name}"]
    for name, value, default in (
        ("language", ",".join(how.languages), ""),
        ("k", ",".join(map(str, how.ks)), "1"),
        ("samples", how.samples, plainly.samples),
        ("temperature", how.temperature, plainly.temperature),
        ("top-p", how.top_p, plainly.top_p),
        ("max-tokens", how.max_tokens, plainly.max_tokens),
        ("seed", how.seed, plainly.seed),
        ("limit", how.limit, plainly.limit),
        ("format", how.form, plainly.form),
        ("values", options.values, usual.values),
        ("head", options.head, usual.head),
        ("seq-len", options.length, usual.length),
        ("batch", how.together, plainly.together),
    ):
        if value != default:
            words += [f"--{name}", str(value)]
    words += ["--out", out.name if out.is_absolute() or ".." in out.parts else str(out)]
    return shlex.join(words)
