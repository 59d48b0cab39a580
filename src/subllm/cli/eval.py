"""`subllm eval`: how good a model is, in figures that can be made again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from subllm.cli import eval_tables
from subllm.cli.context import complete_name, open_context
from subllm.cli.moved import moved_into
from subllm.cli.set_option import apply_set

if TYPE_CHECKING:
    from subllm.measuring.evaluation.asking import Asking
    from subllm.measuring.evaluation.options import TaskOptions
    from subllm.models.store.store import Store

EXAMPLES = """
subllm eval qwen2.5-coder:0.5b-python --task builtin
subllm eval qwen2.5-coder:0.5b-python --task humaneval
subllm eval qwen2.5-coder:0.5b-java --task humaneval-x --limit 20
subllm eval qwen2.5-coder:0.5b-dense --task humaneval-x --language all \\
    --k 1,10 --samples 10 --temperature 0.8
subllm eval qwen2.5-coder:0.5b-python --task mbpp --set prompt=chat
subllm eval qwen2.5-coder:0.5b-cpp --task MultiPL-E.jsonl --language cpp
subllm eval qwen2.5-coder:0.5b-python --task infilling \\
    --data HumanEval-SingleLineInfilling.jsonl.gz
subllm eval qwen2.5-coder:0.5b-python --task perplexity --language all
subllm eval qwen2.5-coder:0.5b-python --task agreement
subllm eval qwen2.5-coder:0.5b-math --task gsm8k --limit 100
subllm eval qwen2.5-coder:0.5b-general --task csr --limit 200
"""

MOVED = {
    f"--{old}": moved_into("--set", f"--set {key}={{value}}", "subllm eval --help", str)
    for old, key in (
        ("top-p", "top_p"),
        ("max-tokens", "max_tokens"),
        ("seed", "seed"),
        ("format", "prompt"),
        ("batch", "batch"),
    )
}


def command(
    *,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A model of 'subllm list'.", autocompletion=complete_name
        ),
    ],
    task: Annotated[
        str,
        typer.Option(
            help="builtin (40 problems of our own a language), humaneval, humaneval-x, mbpp "
            "(fetched from the hub, or read from --data), multipl-e, infilling (from --data), "
            "perplexity, agreement, a file of problems; or a domain (csr, math, translation) or "
            "one of its tasks (hellaswag, gsm8k, ...)."
        ),
    ],
    language: Annotated[
        str,
        typer.Option(
            help="python, java, cpp, javascript, several as a,b or 'all'. Default: the model's "
            "own, else python."
        ),
    ] = "",
    data: Annotated[
        list[Path] | None,
        typer.Option(help="File with the task's data; once for each language if need be."),
    ] = None,
    k: Annotated[str, typer.Option("--k", help="The k of pass@k, several as 1,10.")] = "1",
    samples: Annotated[
        int | None, typer.Option(min=1, help="Completions of each problem. Default: largest k.")
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(min=0, help="0 is greedy. Default: 0 for one sample, 0.8 for several."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Only the first problems, sequences or prompts; of domains, so many questions.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Once for each: max_tokens (of a completion, 512), prompt (raw: text to go on "
            "with; chat: the model's template; auto), seed (0), top_p (1), batch (completions "
            "written at once, 24).",
        ),
    ] = None,
    unsafe: Annotated[
        bool,
        typer.Option("--unsafe", help="Run programs although this machine cannot contain them."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Directory of the records. Default: evaluations/ in the store."),
    ] = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the results as one JSON document.")
    ] = False,
) -> None:
    """Measure a model: pass@k on code benchmarks, perplexity, agreement with its base.

    Code benchmarks: the model finishes each problem, the program is compiled and run in a
    sandbox, and pass@k is the share of problems that k tries solve (Chen et al. 2021), with
    its 95 % interval over problems. The data's own solutions run first; the result says how
    many pass. builtin: 40 small problems that come with subllm, in each language; beside pass@k
    it says how much of the dense base's the model has kept, where 'subllm add' has made that
    one. perplexity: of held-out text. agreement: how many greedy tokens are those of
    the dense base. infilling: exact match and pass rate of holes filled.

    Domains, through lm-evaluation-harness (pip install 'subllm[eval]'): csr is openbookqa,
    winogrande, boolq, arc_easy, arc_challenge and hellaswag, zero-shot accuracy; math is
    gsm8k, exact match after 8 worked examples; translation is wmt14 and opus_books, French to
    English, METEOR of the best of 5. --limit draws its questions by --set seed=N. --data is a file
    with the rows of the task's split, or a directory with a file for each split; for a whole
    domain, a directory with one of these for each task.

    Every completion, program and verdict is kept in a records file of JSON lines. Stopped
    halfway, the same command goes on where it was; done before, it answers from the file.
    """
    from subllm.cli.progress_bars import RichProgress
    from subllm.measuring.evaluation.asking import Asking
    from subllm.measuring.evaluation.bench import open_bench
    from subllm.measuring.evaluation.measures.table import load_measures

    given = {"k": k, "samples": samples, "temperature": temperature, "limit": limit}
    asking = apply_set(Asking, settings or [], given)
    context = open_context()
    store = context.store
    options = _options(asking, task, _languages(store, model, language), data or [])
    with (
        RichProgress() as progress,
        open_bench(store, context.settings, progress, records=out, unsafe=unsafe) as bench,
    ):
        measures = load_measures(task, options, bench, [bench.text(model)])
        results = [measure.run(bench, model) for measure in measures]
    eval_tables.show(results, json_output)


def _options(
    asking: Asking, task: str, languages: tuple[str, ...], files: Sequence[Path]
) -> TaskOptions:
    """Raises UsageError for several files where the task reads one."""
    from subllm.errors import UsageError
    from subllm.measuring.evaluation.measures.table import reads_problems

    if reads_problems(task):
        return asking.task_options(languages, files, {})
    if len(files) > 1:
        raise UsageError("this task reads one --data; run it once for each")
    return asking.task_options(languages, [], {task: files[0]} if files else {})


def _languages(store: Store, model: str, language: str) -> tuple[str, ...]:
    """Raises UnknownNameError for a model or a language that is not there."""
    from subllm.languages import LANGUAGES, parse_languages

    own = store.model(model).language
    return parse_languages(language) or (own if own in LANGUAGES else "python",)
