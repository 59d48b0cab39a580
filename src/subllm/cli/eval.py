"""`subllm eval`: how good a model is, in figures that can be made again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from subllm.cli import console, eval_tables
from subllm.cli.context import Context, complete_name, open_context
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
    from subllm.evaluation.engines import Engines
    from subllm.evaluation.records import Result
    from subllm.progress import Progress
    from subllm.store.store import Store
    from subllm.text.tokenizer import Tokenizer

EXAMPLES = """
subllm eval qwen2.5-coder:0.5b-python --task humaneval
subllm eval qwen2.5-coder:0.5b-java --task humaneval-x --limit 20
subllm eval qwen2.5-coder:0.5b-dense --task humaneval-x --language all \\
    --k 1,10 --samples 10 --temperature 0.8
subllm eval qwen2.5-coder:0.5b-python --task mbpp --format chat
subllm eval qwen2.5-coder:0.5b-cpp --task MultiPL-E.jsonl --language cpp
subllm eval qwen2.5-coder:0.5b-python --task infilling \\
    --data HumanEval-SingleLineInfilling.jsonl.gz
subllm eval qwen2.5-coder:0.5b-python --task perplexity --language all
subllm eval qwen2.5-coder:0.5b-python --task agreement
subllm eval qwen2.5-coder:0.5b-math --task gsm8k --limit 100
subllm eval qwen2.5-coder:0.5b-general --task csr --limit 200
"""


def command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A model of 'subllm list'.", autocompletion=complete_name
        ),
    ],
    task: Annotated[
        str,
        typer.Option(
            help="humaneval, humaneval-x, mbpp (fetched from the hub, or read from --data), "
            "multipl-e, infilling (from --data), perplexity, agreement, a file of problems; "
            "or a domain (csr, math, translation) or one of its tasks (hellaswag, gsm8k, ...)."
        ),
    ],
    language: Annotated[
        str,
        typer.Option(
            help="python, java, cpp, javascript, several as a,b or 'all'. Default: the model's "
            "own, else python."
        ),
    ] = "",
    k: K = "1",
    samples: Samples = None,
    temperature: Temperature = None,
    top_p: TopP = 1.0,
    max_tokens: MaxTokens = 512,
    seed: Seed = 0,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Only the first problems, sequences or prompts."),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(help="File with the task's data; once for each language if need be."),
    ] = None,
    prompt: Format = "raw",
    out: Annotated[
        Path | None,
        typer.Option(help="Directory of the records. Default: evaluations/ in the store."),
    ] = None,
    batch: Batch = 24,
    unsafe: Unsafe = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the results as one JSON document.")
    ] = False,
) -> None:
    """Measure a model: pass@k on code benchmarks, perplexity, agreement with its base.

    Code benchmarks: the model finishes each problem, the program is compiled and run in a
    sandbox, and pass@k is the share of problems that k tries solve (Chen et al. 2021), with
    its 95 % interval over problems. The data's own solutions run first; the result says how
    many pass. perplexity: of held-out text. agreement: how many greedy tokens are those of
    the dense base. infilling: exact match and pass rate of holes filled.

    Domains, through lm-evaluation-harness (pip install 'subllm[eval]'): csr is openbookqa,
    winogrande, boolq, arc_easy, arc_challenge and hellaswag, zero-shot accuracy; math is
    gsm8k, exact match after 8 worked examples; translation is wmt14 and opus_books, French to
    English, METEOR of the best of 5. --limit draws its questions by --seed. --data is a file
    with the rows of the task's split, or a directory with a file for each split; for a whole
    domain, a directory with one of these for each task.

    Every completion, program and verdict is kept in a records file of JSON lines. Stopped
    halfway, the same command goes on where it was; done before, it answers from the file.
    """
    from subllm.cli.progress_bars import RichProgress
    from subllm.evaluation.domains import tasks_of
    from subllm.evaluation.engines import Engines

    context = open_context()
    settings = context.settings
    work = _Work(
        context=context,
        model=model,
        languages=_languages(context, model, language),
        files=tuple(data or ()),
        limit=limit,
        directory=(out or settings.home / DIRECTORY).expanduser(),
    )
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
        if task == "perplexity":
            results = [_perplexity(work, one, engines, progress) for one in work.languages]
        elif task == "agreement":
            results = [_agreement(work, one, engines, progress) for one in work.languages]
        elif names := tasks_of(task):
            results = [
                _domain(
                    work,
                    name,
                    {"seed": seed, "together": batch, "data": _rows(work, name, task)},
                    engines,
                    progress,
                )
                for name in names
            ]
        else:
            sampling = drawn(k, samples, temperature)
            options = {
                "samples": sampling.samples,
                "ks": sampling.ks,
                "temperature": sampling.temperature,
                "top_p": top_p,
                "max_tokens": max_tokens,
                "seed": seed,
                "form": parse_format(prompt),
                "together": batch,
                "tools": engines.tools(),
                "threads": settings.threads,
            }
            results = _problems(work, task, options, unsafe, engines, progress)
    if json_output:
        console.emit_json({"results": [eval_tables.document(result) for result in results]})
    else:
        eval_tables.show(results)


@dataclass(frozen=True)
class _Work:
    """What all measurements of one call share."""

    context: Context
    model: str
    languages: tuple[str, ...]
    files: tuple[Path, ...]
    limit: int | None
    directory: Path

    @property
    def only_file(self) -> Path | None:
        """Raises UsageError for several."""
        from subllm.errors import UsageError

        if len(self.files) > 1:
            raise UsageError("this task reads one --data; run it once for each")
        return self.files[0].expanduser() if self.files else None


def _problems(
    work: _Work,
    task: str,
    options: dict[str, Any],
    unsafe: bool,
    engines: Engines,
    progress: Progress,
) -> list[Result]:
    from subllm.evaluation.data import load_benchmark
    from subllm.evaluation.run import Plan, evaluate
    from subllm.evaluation.study.bench import Bench

    offline = work.context.settings.offline
    plans = {}
    for language in work.languages:  # all data first: a wrong file shows at once
        label, benchmark = load_benchmark(
            task, language, work.files, offline=offline, progress=progress
        )
        plans[language] = Plan(task=label, benchmark=benchmark.first(work.limit), **options)
    store = work.context.store
    with Bench(store, engines, work.directory, progress, unsafe=unsafe) as bench:
        return [
            evaluate(
                store,
                work.model,
                plan,
                bench.toolchain(language),
                engines,
                work.directory,
                progress,
            )
            for language, plan in plans.items()
        ]


def _perplexity(work: _Work, language: str, engines: Engines, progress: Progress) -> Result:
    from subllm.evaluation.held_out import SEQUENCES, held_out
    from subllm.evaluation.perplexity import measure_perplexity

    store = work.context.store
    tokens, source = held_out(
        language,
        _tokenizer(store, work.model),
        store.model(work.model).prompt,
        sequences=work.limit or SEQUENCES,
        path=work.only_file,
    )
    return measure_perplexity(
        store,
        work.model,
        language,
        tokens,
        source,
        engines,
        work.directory,
        progress,
        tools=engines.tools(),
        threads=work.context.settings.threads,
    )


def _agreement(work: _Work, language: str, engines: Engines, progress: Progress) -> Result:
    from subllm.evaluation.agreement import PROMPT_TOKENS, PROMPTS, measure_agreement
    from subllm.evaluation.held_out import held_out

    store = work.context.store
    tokens, source = held_out(
        language,
        _tokenizer(store, work.model),
        store.model(work.model).prompt,
        sequences=work.limit or PROMPTS,
        length=PROMPT_TOKENS,
        path=work.only_file,
    )
    return measure_agreement(
        store,
        work.model,
        _dense(store, work.model),
        language,
        tokens,
        source,
        engines,
        work.directory,
        progress,
        tools=engines.tools(),
        threads=work.context.settings.threads,
    )


def _domain(
    work: _Work, task: str, options: dict[str, Any], engines: Engines, progress: Progress
) -> Result:
    from subllm.evaluation.domain_records import measure_domain

    settings = work.context.settings
    return measure_domain(
        work.context.store,
        work.model,
        task,
        engines,
        work.directory,
        progress,
        limit=work.limit,
        offline=settings.offline,
        tools=engines.tools(),
        threads=settings.threads,
        **options,
    )


def _rows(work: _Work, task: str, asked: str) -> Path | None:
    """Where the rows of `task` are, None for the hub: in --data, or when a whole domain was
    `asked` for, in a directory of the task's name there."""
    given = work.only_file
    return given if given is None or task == asked else given / task


def _tokenizer(store: Store, model: str) -> Tokenizer:
    from subllm.store.tokenizers import open_tokenizer

    return open_tokenizer(store, store.model(model))


def _dense(store: Store, model: str) -> str:
    """The dense model of the same base. Raises UsageError when it is not there."""
    from subllm.errors import UsageError
    from subllm.store.names import model_name

    base = store.model(model).base.name
    name = model_name(base, "dense")
    if name not in store.names():
        raise UsageError(f"there is no dense base to agree with; run 'subllm add {base}'")
    return name


def _languages(context: Context, model: str, language: str) -> tuple[str, ...]:
    """Raises UnknownNameError for a model or a language that is not there."""
    from subllm.routing.languages import LANGUAGES, parse_languages

    own = context.store.model(model).language
    return parse_languages(language) or (own if own in LANGUAGES else "python",)
