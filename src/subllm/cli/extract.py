"""`subllm extract`: make the sub-model of a language."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from subllm.cli import console
from subllm.cli.asked import explicit, named_values
from subllm.cli.bases import BASE_HELP, BASE_NAME_HELP
from subllm.cli.density import (
    BUDGET_HELP,
    KEEP_HELP,
    goal_document,
    goal_of,
    missed,
    prepare_for,
    summary,
)
from subllm.cli.losses import perplexity_rows, problem_rows, recovery_rows
from subllm.cli.problems import NoProblems
from subllm.cli.teachers import Teacher, taught_by
from subllm.making.extraction.defaults import (
    DEFAULT_PATTERN,
    DEFAULT_RECOVERY,
    DEFAULT_SAMPLES,
    DEFAULT_VALUES,
    FAST_SECONDS,
    PLAIN_METHOD,
    RECOVERED_METHOD,
    fast_counts,
)

if TYPE_CHECKING:
    from subllm.measuring.evaluation.kept import Kept
    from subllm.models.store.manifest import ModelManifest

EXAMPLES = """
subllm extract python                         of the default base
subllm extract all --base qwen2.5-coder:1.5b  python, java, cpp, javascript
subllm extract java --pattern 2:4 --values int4
subllm extract python --base ./model.gguf     or a directory, or hf:org/name
subllm extract python --method ria --method-param a=0.7
subllm extract python --fast                  two minutes, no recovery
subllm extract python --recover 90m           or 2h, 500ktok, 2Mtok, off
subllm extract python --teacher qwen2.5-coder:1.5b   holes from the larger
subllm extract python --head int4 --tag small
subllm extract python --budget 0.7            density where it counts most
subllm extract python --calibration ~/src/app  on your own code
subllm extract cpp --calibration pack:cpp=0.5,~/src/engine=0.5
"""

DEFAULT_BASE = "qwen2.5-coder:0.5b"
_NOT_AGAIN = ("base", "base_name", "calibration", "device", "json_output")  # or said otherwise


def command(
    asked: typer.Context,
    language: Annotated[
        str,
        typer.Argument(
            help="python, java, cpp, javascript, general, any domain that --calibration "
            "describes, or 'all' for the four languages."
        ),
    ],
    base: Annotated[str, typer.Option(help=BASE_HELP)] = DEFAULT_BASE,
    base_name: Annotated[str, typer.Option(metavar="FAMILY:SIZE", help=BASE_NAME_HELP)] = "",
    method: Annotated[
        str | None,
        typer.Option(
            help="How weights are chosen: wanda, ria, sparsegpt, dpruner, maskllm or magnitude. "
            f"Default: {RECOVERED_METHOD}; without recovery {PLAIN_METHOD}."
        ),
    ] = None,
    method_param: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A parameter of the method, such as a=0.7 for ria; may be given again.",
        ),
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option(
            help="N:M keeps N of every M inputs (M 4, 8, 16, 32); P% removes that share of a row. "
            f"Default: {DEFAULT_PATTERN}; where it is known which matrices of the base need more, "
            "as many bytes in different patterns."
        ),
    ] = None,
    budget: Annotated[float | None, typer.Option(metavar="SHARE", help=BUDGET_HELP)] = None,
    keep: Annotated[float | None, typer.Option(metavar="SHARE", help=KEEP_HELP)] = None,
    values: Annotated[
        str | None,
        typer.Option(
            help=f"How kept weights are stored: bf16, int8, int4. Default: {DEFAULT_VALUES}."
        ),
    ] = None,
    head: Annotated[
        str,
        typer.Option(
            help="How head and embedding are stored: bf16, int8, int4. Sub-models share "
            "them with those of the same choice."
        ),
    ] = "int8",
    calibration: Annotated[
        str,
        typer.Option(
            help="pack:LANGUAGE, a directory of code, a .jsonl file, hub:SET, made:NAME ('subllm "
            "data'), or a mix such as pack:python=0.7,PATH=0.3. Default: the language's own pack."
        ),
    ] = "",
    samples: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100_000,
            help=f"Calibration sequences. Default: {DEFAULT_SAMPLES}; with --fast as many as "
            f"fit {FAST_SECONDS} s, {fast_counts()[0]} at least.",
        ),
    ] = None,
    seq_len: Annotated[int, typer.Option(min=8, help="Tokens in each sequence.")] = 512,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the calibration sample.")] = 0,
    recover: Annotated[
        str | None,
        typer.Option(
            metavar="off|DURATION|NMtok",
            help="How long what is kept learns from the dense base: 90m, 2h, 2Mtok (tokens). "
            f"Default: {DEFAULT_RECOVERY} where memory and text suffice. Longer later: "
            "'subllm recover'.",
        ),
    ] = None,
    no_keep_state: Annotated[
        bool,
        typer.Option(
            "--no-keep-state",
            help="Do not keep what was learned before it is rounded, two bytes a kept weight, "
            "which 'subllm recover' goes on from.",
        ),
    ] = False,
    evaluate: Annotated[
        str, typer.Option(help="Also measure the loss on these languages: a,b or 'all'.")
    ] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "",
    fast: Annotated[
        bool,
        typer.Option(
            "--fast",
            help="Plain Wanda, no recovery, and only as many calibration sequences "
            f"as this machine runs in about {FAST_SECONDS} s.",
        ),
    ] = False,
    teacher: Teacher = "",
    no_problems: NoProblems = False,
    tag: Annotated[str, typer.Option(help="Appended to the name, to keep variants apart.")] = "",
    name: Annotated[str, typer.Option(help="A name of your own instead of base-language.")] = "",
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the results as one JSON document.")
    ] = False,
) -> None:
    """Extract the sub-model of a language: prune, recover, pack, measure, store.

    Calibration shows which weights of the base carry the activations of that language's code;
    those are kept. They then learn what the dense base answers to text of the language, for as
    long as --recover says, and are packed for sparse kernels. Stopped halfway, also by Ctrl-C,
    the same command goes on where it was; done before, it answers from the store.

    After recovery 40 small problems (of 'subllm eval --task builtin') tell how many the sub-model
    solves beside the dense base, where 'subllm add' has made that one, the language's compiler or
    interpreter is there, and it takes no more than about a quarter of an hour.
    """
    from subllm.cli.bases import ensure_base
    from subllm.cli.context import open_context
    from subllm.cli.made_text import with_made
    from subllm.cli.problems import ask_problems, interrupted
    from subllm.cli.progress_bars import RichProgress
    from subllm.errors import UsageError
    from subllm.making.recovery.budget import parse_budget
    from subllm.models.store.names import check_model_name

    languages = _languages(language)
    if name and len(languages) > 1:
        raise UsageError("--name is for one language; use --tag with 'all'")
    if name:
        check_model_name(name, languages[0])
    params = named_values("--method-param", method_param or ())
    if fast and (method not in (None, PLAIN_METHOD) or params):
        raise UsageError("--fast is plain wanda; leave --method and --method-param out")
    goal = goal_of(pattern, budget, keep)
    wanted = recover or ("off" if fast else DEFAULT_RECOVERY)
    plain: dict[str, Any] = {
        "method": method or PLAIN_METHOD,
        "recover": "off",
    }
    how = plain
    if not parse_budget(wanted).off:  # before anything is fetched
        how = {
            "method": method or RECOVERED_METHOD,
            "recover": wanted,
        }
    elif teacher:
        raise UsageError("a teacher is for recovery, which is off here; leave --teacher out")
    context = open_context()
    domains = _domains(evaluate)
    documents = []
    stopped = False
    with RichProgress() as progress:
        base = ensure_base(context, base, progress, base_name)
        if teacher:
            how = how | {"teacher": ensure_base(context, teacher, progress)}
        from subllm.making.calibration.load import absolute_spec
        from subllm.making.extraction.extract import extract
        from subllm.making.extraction.made import made_by
        from subllm.making.extraction.prepare import ExtractOptions

        again = ["--base", base, *explicit(asked, _NOT_AGAIN)]
        text = with_made(context.settings.home, calibration)
        if text:
            again += ["--calibration", absolute_spec(text)]
        for one in languages:
            options = ExtractOptions(
                language=one,
                **how,
                method_params=params,
                pattern=pattern or DEFAULT_PATTERN,
                values=values or DEFAULT_VALUES,
                head=head,
                keep_unrounded=not no_keep_state,
                calibration=text,
                samples=samples,
                fast=fast,
                seq_len=seq_len,
                seed=seed,
                device=device or context.settings.device,
                evaluate=domains,
                tag=tag,
                name=name,
                offline=context.settings.offline,
                made=made_by(["extract", one, *again], base),
            )
            try:
                prepared, chosen = prepare_for(
                    context, base, options, goal, progress, lay_out=pattern is None
                )
            except UsageError as error:
                if recover is not None or teacher or how is plain:
                    raise
                # Nobody asked for a recovery; what is wrong without one as well is raised again.
                options = replace(options, **plain)
                prepared, chosen = prepare_for(
                    context, base, options, goal, progress, lay_out=pattern is None
                )
                console.note(f"{one}: no recovery here: {error}")
            _announce(prepared)
            try:
                report = extract(
                    context.store, prepared, progress, threads=context.settings.threads
                )
            except KeyboardInterrupt:
                progress.note(f"{prepared.name}: stopped; the same command goes on where it was")
                raise
            manifest, kept = report.manifest, None
            if manifest.recovery is not None and not no_problems:
                try:
                    kept = ask_problems(context, report.name, progress)
                except KeyboardInterrupt:  # what took long is told all the same
                    progress.note(interrupted(report.name))
                    stopped = True
            documents.append(_document(report, kept) | goal_document(goal, chosen, manifest))
            if not json_output:
                _show(report, kept)
            if (
                goal is not None
                and chosen is not None
                and (short := missed(goal, chosen, manifest))
            ):
                console.warn(short)
            if stopped:
                break
    if json_output:
        console.emit_json(documents[0] if language != "all" else documents)
    if stopped:
        raise KeyboardInterrupt


def _languages(language: str) -> tuple[str, ...]:
    from subllm.languages import LANGUAGES, canonical
    from subllm.models.store.names import check_language

    if language == "all":
        return LANGUAGES
    return (check_language(canonical(language)),)


def _domains(evaluate: str) -> tuple[str, ...]:
    return tuple(
        language
        for part in evaluate.split(",")
        if part.strip()
        for language in _languages(part.strip())
    )


def _announce(prepared: Any) -> None:
    """What will happen and what it will cost, before it starts."""
    plan, estimate = prepared.plan, prepared.estimate
    if prepared.cached is not None:
        console.note(f"{prepared.name}: this plan was extracted before, taken from the store")
    if prepared.replaces is not None and prepared.replaces.plan != plan.digest:
        old = prepared.replaces
        console.note(
            f"{prepared.name} exists ({_method(old.method)} {old.pattern} {old.values}, "
            f"head {old.head}{_recovered(old)}) and will be replaced; --tag keeps both"
        )
    if prepared.cached is not None:
        return
    for line in prepared.notes:
        console.note(line)
    data = "no calibration"
    if plan.calibration is not None:
        record = plan.calibration
        data = f"{record.samples} x {record.seq_len} tokens of {record.source}"
    console.note(
        f"{prepared.name}: {_method(plan.method)}, {plan.allocation}, {plan.values}, "
        f"head {plan.head}; {data}\n"
        f"about {console.duration(round(estimate.seconds))} and "
        f"{console.size(estimate.peak_memory_bytes)} of memory on {prepared.device} "
        f"({plan.compute}, {estimate.rate / 1e9:.0f} GFLOP/s)"
    )
    if prepared.recovery is not None:
        data = prepared.recovery.data
        console.note(
            f"then recovery for {prepared.recovery.budget} on {data.source} "
            f"({data.unique_tokens:,} tokens, in several forms){taught_by(prepared.recovery)}; "
            "Ctrl-C stops it, the same command goes on\n"
            f"which takes about {console.size(prepared.recovery_bytes)} of memory; "
            f"packing after it about {console.duration(round(estimate.packing))}"
        )


def _recovered(manifest: ModelManifest) -> str:
    """`, recovered on 2,000,000 tokens`, where it is."""
    record = manifest.recovery
    return f", recovered on {record.tokens:,} tokens" if record else ""


def _method(record: Any) -> str:
    values = " ".join(f"{name}={value}" for name, value in record.params.items())
    return f"{record.name} {values}".rstrip()


def _show(report: Any, kept: Kept | None) -> None:
    manifest = report.manifest
    rows = [
        ("name", report.name),
        ("dense, bf16", console.size(report.dense_bytes)),
        (
            "packed",
            f"{console.size(report.own_bytes)} + {console.size(report.shared_bytes)} shared "
            f"by all sub-models of this base with head {manifest.head}",
        ),
        ("density", f"{manifest.density:.1%} of the block weights, {manifest.values}"),
        ("kept", summary(manifest)),
    ]
    rows += problem_rows(manifest, kept)
    rows += perplexity_rows(manifest, kept)
    rows += recovery_rows(manifest)
    rows.append(("time", "from the store" if report.cached else console.duration(report.seconds)))
    if not report.cached:
        rows.append(("peak memory", console.size(report.peak_memory_bytes)))
    console.facts(rows)
    console.note(f'try it: subllm complete --model {report.name} "..."')


def _document(report: Any, kept: Kept | None) -> dict[str, Any]:
    manifest = report.manifest
    return {
        "name": report.name,
        "digest": report.digest,
        "cached": report.cached,
        "resumed_at_block": report.resumed_at,
        "base": manifest.base.name,
        "language": manifest.language,
        "method": manifest.method.name,
        "method_params": manifest.method.params,
        "pattern": manifest.pattern,
        "values": manifest.values,
        "head": manifest.head,
        "density": manifest.density,
        "dense_bytes": report.dense_bytes,
        "own_bytes": report.own_bytes,
        "shared_bytes": report.shared_bytes,
        "perplexity": {d: p.model_dump() for d, p in manifest.perplexity.items()},
        "problems": kept.document() if kept else None,
        "calibration": manifest.calibration.model_dump() if manifest.calibration else None,
        "compute": report.compute,
        "recovery": manifest.recovery.model_dump() if manifest.recovery else None,
        "seconds": report.seconds,
        "peak_memory_bytes": report.peak_memory_bytes,
    }
