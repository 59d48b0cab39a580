"""`subllm show`: all about one name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from subllm.cli import console
from subllm.cli.context import complete_name, open_context
from subllm.cli.density import densities, draw, is_mixed, patterns
from subllm.cli.losses import agreement, recovery_rows, tuning_rows
from subllm.machine import free_memory
from subllm.quantities import bytes_of
from subllm.served_context import served_context
from subllm.serving.server.loading import StoreLoader

if TYPE_CHECKING:
    from subllm.cli.context import Context
    from subllm.models.store.manifest import BaseManifest, MadeBy, ModelManifest, RunRecord
    from subllm.models.store.sizes import Sizes

EXAMPLES = """
subllm show qwen2.5-coder:0.5b-python
subllm show qwen2.5-coder:0.5b --json
"""

Facts = list[tuple[str, str]]
_TOLD = {"prune.method", "prune.pattern", "store.values", "store.head", "recovery.for"}
"""Keys of a recipe that are shown even where they are as usual."""


def command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A base or a model in the store.", autocompletion=complete_name
        ),
    ],
    json_output: Annotated[
        bool, typer.Option("--json", help="Print manifest, sizes and run as one JSON document.")
    ] = False,
    licence: Annotated[
        bool, typer.Option("--licence", help="Print the text of the base's licence instead.")
    ] = False,
) -> None:
    """Show how a model was made, how big it is and what it lost."""
    from subllm.models.store.sizes import sizes_of

    context = open_context()
    store = context.store
    digest = store.resolve(name)
    manifest = store.manifest(digest)
    served = _served(context, manifest)
    sizes = sizes_of(store, name)
    run = store.run_record(digest)
    if licence:
        terms = (manifest if manifest.kind == "base" else manifest.base).licence
        console.result(terms.text or f"{terms.id} (the source came without its text)")
    elif json_output:
        console.emit_json(
            {
                "name": name,
                "digest": digest,
                "context_length": served,
                "manifest": manifest.model_dump(mode="json"),
                "patterns": patterns(manifest) if manifest.kind == "model" else None,
                "own_bytes": sizes.own,
                "shared_bytes": sizes.shared,
                "shared_with": list(sizes.shared_with),
                "outside_bytes": sizes.outside,
                "recovery_state_bytes": sizes.recovery,
                "run": run.model_dump(mode="json") if run else None,
            }
        )
    elif manifest.kind == "base":
        console.facts([*_base_facts(manifest, served), *_size_facts(sizes), ("digest", digest)])
    else:
        console.facts(
            [
                *_model_facts(manifest, served),
                *_size_facts(sizes),
                *_run_facts(run),
                ("digest", digest),
            ]
        )
        if is_mixed(manifest):
            draw(densities(manifest))
        if run is not None and run.made is not None and (recipe := _recipe(run.made)):
            console.result(f"\n{recipe}")


def _recipe(made: MadeBy) -> str:
    """As TOML: what was asked for, and the default of it where that decides most; `subllm recipe
    show of:NAME` has every key. "" for what was not extracted by a recipe."""
    from subllm.errors import UsageError
    from subllm.making.extraction.made import recipe_of
    from subllm.making.extraction.recipes.sections import Recipe
    from subllm.making.extraction.recipes.write import to_toml

    if made.arguments[0] != "extract":
        return ""
    try:
        whole = made.recipe or recipe_of(made).recipe.sections()
    except UsageError:
        return ""
    usual = Recipe().sections()
    told = {
        section: {
            key: value
            for key, value in keys.items()
            if f"{section}.{key}" in _TOLD or value != usual.get(section, {}).get(key)
        }
        for section, keys in whole.items()
    }
    return to_toml(told)


def _served(context: Context, manifest: BaseManifest | ModelManifest) -> int:
    """Tokens that a server started now would serve of it."""
    settings = context.settings
    if manifest.kind == "base":
        return served_context(manifest.prompt.context_length, settings.context_length)
    loader = StoreLoader(
        context.store,
        context_length=settings.context_length,
        memory=bytes_of(settings.memory, free_memory()),
        kv_type=settings.kv_type,
    )
    return loader.context_of(manifest)


def _base_facts(manifest: BaseManifest, served: int) -> Facts:
    files = len(manifest.files)
    return [
        ("name", manifest.name),
        ("kind", f"base ({manifest.weights}, {files} file{'' if files == 1 else 's'})"),
        ("source", _source(manifest.source, manifest.revision)),
        ("licence", manifest.licence.id),
        ("context", _context(manifest.prompt.context_length, served)),
        ("fill-in", "yes" if manifest.prompt.fim else "no"),
    ]


def _model_facts(manifest: ModelManifest, served: int) -> Facts:
    calibration = manifest.calibration
    sparse = sum(entry.pattern != "dense" for entry in manifest.tensors)
    facts: Facts = [
        ("name", manifest.name),
        ("kind", "dense base, packed" if manifest.language == "dense" else "sub-model"),
        ("language", manifest.language),
        ("base", _source(f"{manifest.base.name}, {manifest.base.source}", manifest.base.revision)),
        ("licence", manifest.base.licence.id),
        ("method", _with_params(manifest.method.name, manifest.method.params)),
        ("pattern", f"{manifest.pattern}, {manifest.density:.1%} of the block weights kept"),
        ("values", f"{manifest.values}, head {manifest.head}"),
        ("tensors", f"{len(manifest.table())}, {sparse} of them sparse"),
    ]
    if calibration is not None:
        facts.append(
            (
                "calibration",
                f"{calibration.source}, {calibration.samples} x {calibration.seq_len} tokens, "
                f"seed {calibration.seed}",
            )
        )
    for domain, value in manifest.perplexity.items():
        facts.append(
            (
                f"perplexity, {domain}",
                f"{value.before:.3f} dense, {value.after:.3f} now "
                f"({value.after / value.before - 1:+.1%} on {value.tokens:,} tokens)",
            )
        )
        if value.agreement is not None:
            facts.append((f"agreement, {domain}", agreement(value)))
    facts += [*recovery_rows(manifest), *tuning_rows(manifest)]
    facts.append(("context", _context(manifest.prompt.context_length, served)))
    facts.append(("fill-in", "yes" if manifest.prompt.fim else "no"))
    return facts


def _size_facts(sizes: Sizes) -> Facts:
    shared = ""
    if sizes.shared:
        shared = f"{console.size(sizes.shared)} with {', '.join(sizes.shared_with)}"
    return [
        ("own size", console.size(sizes.own) if sizes.own else ""),
        ("shared size", shared),
        ("outside", console.size(sizes.outside) if sizes.outside else ""),
        (
            "state",
            f"{console.size(sizes.recovery)}, for 'subllm recover' or 'subllm tune' to go on with"
            if sizes.recovery
            else "",
        ),
        ("missing", f"{sizes.missing} blobs; run 'subllm verify'" if sizes.missing else ""),
    ]


def _run_facts(run: RunRecord | None) -> Facts:
    if run is None:
        return []
    blocks = f", blocks in {run.compute}" if run.compute else ""
    pulled = run.pulled
    return [
        ("pulled", f"from {_source(pulled.source, pulled.revision)}" if pulled else ""),
        (
            "made",
            f"{run.created} in {console.duration(run.seconds)} on {run.threads} threads{blocks}, "
            f"peak memory {console.size(run.peak_memory_bytes)}",
        ),
        ("recovery", _recovery_run(run)),
    ]


def _recovery_run(run: RunRecord) -> str:
    """`2 h 07 min in bfloat16, 0.431 -> 0.102 KL in 20 points (--json has them)`."""
    went = run.recovery
    if went is None:
        return ""
    return (
        f"{console.duration(went.seconds)} in {went.compute}, {len(went.curve)} points of its "
        "curve (--json has them)"
    )


def _context(longest: int, served: int) -> str:
    more = f" (model's maximum {longest:,}; --context-length of 'serve')"
    return f"{served:,} tokens" + (more if served < longest else "")


def _source(source: str, revision: str) -> str:
    return f"{source} at {revision[:12]}" if revision else source


def _with_params(name: str, params: dict[str, Any]) -> str:
    if not params:
        return name
    return f"{name} ({', '.join(f'{key} {value}' for key, value in params.items())})"
