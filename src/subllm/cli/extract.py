"""`subllm extract`: make the sub-model of a language."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from subllm.cli import console
from subllm.cli.asked import explicit
from subllm.cli.bases import BASE_HELP, BASE_NAME_HELP
from subllm.cli.density import goal_document, goal_of, missed, prepare_for, summary
from subllm.cli.losses import perplexity_rows, problem_rows, recovery_rows
from subllm.cli.moved import in_recipe, toml_list, toml_table
from subllm.cli.recipes import RecipeOption, asked_for
from subllm.cli.teachers import taught_by
from subllm.making.extraction.defaults import DEFAULT_RECOVERY, FAST_SECONDS

if TYPE_CHECKING:
    from subllm.making.extraction.prepare import ExtractOptions
    from subllm.making.extraction.recipes.sections import Recipe
    from subllm.measuring.evaluation.kept import Kept
    from subllm.models.store.manifest import ModelManifest

EXAMPLES = """
subllm extract python                         of the default base
subllm extract all --base qwen2.5-coder:1.5b  python, java, cpp, javascript
subllm extract python --base ./model.gguf     or a directory, or hf:org/name
subllm extract python --fast                  two minutes, no recovery
subllm extract python --recover 90m           or 2h, 500ktok, 2Mtok, off
subllm extract python --recipe editor         for completions at a cursor
subllm extract python --recipe mine.toml      'subllm recipe show default'
subllm extract python --recipe small --tag small
subllm extract python --calibration ~/src/app  on your own code
subllm extract cpp --calibration pack:cpp=0.5,~/src/engine=0.5
"""
MOVED = {
    "--method": in_recipe("[prune] method = {value}"),
    "--method-param": in_recipe("[prune] params = {value}", toml_table),
    "--pattern": in_recipe("[prune] pattern = {value}"),
    "--budget": in_recipe("[prune] budget = {value}"),
    "--keep": in_recipe("[prune] keep = {value}"),
    "--values": in_recipe("[store] values = {value}"),
    "--head": in_recipe("[store] head = {value}"),
    "--no-keep-state": in_recipe("[store] keep_state = false"),
    "--samples": in_recipe("[calibration] samples = {value}"),
    "--seq-len": in_recipe("[calibration] seq_len = {value}"),
    "--seed": in_recipe("[calibration] seed = {value}"),
    "--teacher": in_recipe("[recovery] teacher = {value}"),
    "--evaluate": in_recipe("[report] evaluate = {value}", toml_list),
    "--no-problems": in_recipe("[report] problems = false"),
}

DEFAULT_BASE = "qwen2.5-coder:0.5b"
_NOT_AGAIN = ("base", "base_name", "calibration", "device", "json_output", "recipe")
"""Of an update, or said otherwise."""


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
    calibration: Annotated[
        str,
        typer.Option(
            help="pack:LANGUAGE, a directory of code, a .jsonl file, hub:SET, made:NAME ('subllm "
            "data'), or a mix such as pack:python=0.7,PATH=0.3. Default: the language's own pack."
        ),
    ] = "",
    recover: Annotated[
        str | None,
        typer.Option(
            metavar="off|DURATION|NMtok",
            help="How long what is kept learns from the dense base: 90m, 2h, 2Mtok (tokens). "
            f"Default: {DEFAULT_RECOVERY} where memory and text suffice. Longer later: "
            "'subllm recover'.",
        ),
    ] = None,
    recipe: RecipeOption = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "",
    fast: Annotated[
        bool,
        typer.Option(
            "--fast",
            help=f"The same as --recipe fast: about {FAST_SECONDS} s, no recovery.",
        ),
    ] = False,
    tag: Annotated[str, typer.Option(help="Appended to the name, to keep variants apart.")] = "",
    name: Annotated[str, typer.Option(help="A name of your own instead of base-language.")] = "",
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the results as one JSON document.")
    ] = False,
) -> None:
    """Extract the sub-model of a language: prune, recover, pack, measure, store.

    Calibration shows which weights of the base carry the activations of that language's code;
    those are kept. They then learn what the dense base answers to text of the language, for as
    long as --recover says, and are packed for sparse kernels. A recipe says the rest; what an
    option says holds against it. Stopped halfway, also by Ctrl-C, the same command goes on where
    it was; done before, it answers from the store.

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
    if fast and recipe:
        raise UsageError("--fast is --recipe fast; leave one of them out")
    if recover is not None:
        parse_budget(recover)  # before anything is fetched
    by = asked_for(
        ["fast"] if fast else recipe, {} if recover is None else {"recovery": {"for": recover}}
    )
    how = by.recipe
    _check(how)
    wanted = "for" in by.said.get("recovery", ()) or how.recovery.off or how.recovery.teacher
    goal = goal_of(how.prune.budget, how.prune.keep)
    context = open_context()
    domains = _domains(how.report.evaluate)
    documents = []
    stopped = False
    with RichProgress() as progress:
        base = ensure_base(context, base, progress, base_name)
        if how.recovery.teacher:
            teacher = ensure_base(context, how.recovery.teacher, progress)
            how = how.but({"recovery": {"teacher": teacher}})
        from subllm.making.calibration.load import absolute_spec
        from subllm.making.extraction.extract import extract
        from subllm.making.extraction.made import made_by

        again = ["--base", base, *explicit(asked, _NOT_AGAIN)]
        if by.name not in ("", "default") and not fast:
            again += ["--recipe", by.name]
        text = with_made(context.settings.home, calibration)
        if text:
            again += ["--calibration", absolute_spec(text)]
        for one in languages:
            options = replace(
                _options(one, how),
                calibration=text,
                device=device or context.settings.device,
                evaluate=domains,
                tag=tag,
                name=name,
                offline=context.settings.offline,
                made=made_by(["extract", one, *again], base, by),
            )
            lay_out = how.prune.pattern == "auto"
            try:
                prepared, chosen = prepare_for(
                    context, base, options, goal, progress, lay_out=lay_out
                )
            except UsageError as error:
                if wanted:
                    raise
                # Nobody asked for a recovery; what is wrong without one as well is raised again.
                plain = how.but({"recovery": {"for": "off"}})
                options = replace(options, method=plain.method, recover="off")
                prepared, chosen = prepare_for(
                    context, base, options, goal, progress, lay_out=lay_out
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
            if manifest.recovery is not None and how.report.problems:
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


def _domains(evaluate: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(language for part in evaluate for language in _languages(part.strip()))


def _check(recipe: Recipe) -> None:
    """Raises UsageError for what does not go together."""
    from subllm.errors import UsageError

    if recipe.calibration.fast and not recipe.recovery.off:
        raise UsageError(
            "a fast calibration (--fast) leaves recovery out; leave --recover out, or take another "
            "recipe"
        )
    if recipe.recovery.teacher and recipe.recovery.off:
        raise UsageError("a teacher is for recovery, which is off here; take another recipe")


def _options(language: str, recipe: Recipe) -> ExtractOptions:
    from subllm.making.extraction.prepare import ExtractOptions

    samples = recipe.calibration.samples
    return ExtractOptions(
        language=language,
        method=recipe.method,
        method_params=recipe.prune.params,
        pattern=recipe.pattern,
        values=recipe.store.values,
        head=recipe.store.head,
        samples=None if samples == "auto" else samples,
        seq_len=recipe.calibration.seq_len,
        seed=recipe.calibration.seed,
        fast=recipe.calibration.fast,
        recover=recipe.recovery.budget,
        recipe=recipe.recovery.learning,
        teacher=recipe.recovery.teacher,
        keep_unrounded=recipe.store.keep_state,
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
