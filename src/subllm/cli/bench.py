"""`subllm bench`: how fast a model answers on this machine, and what limits it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from subllm.cli import console
from subllm.cli.context import complete_name, open_context

if TYPE_CHECKING:
    from subllm.engine.compare import ModelSpeed
    from subllm.engine.measure import Series
    from subllm.models.store.manifest import ModelManifest
    from subllm.models.store.store import Store
    from subllm.settings import Settings

EXAMPLES = """
subllm bench                             the sub-model made last
subllm bench qwen2.5-coder:0.5b-python --json
subllm bench --repeat 3 --no-dense       quicker
"""


def command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A model of 'subllm list'. Default: the sub-model made last.",
            autocompletion=complete_name,
        ),
    ] = "",
    prompt_tokens: Annotated[
        int, typer.Option(min=1, help="Length of the prompt whose reading is measured.")
    ] = 512,
    tokens: Annotated[int, typer.Option(min=2, help="Tokens that a sequence decodes.")] = 128,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Default: the cores this process may use.")
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, help="Measurements of each quantity.")] = 5,
    dense: Annotated[
        bool, typer.Option("--dense/--no-dense", help="Measure the dense base beside it.")
    ] = True,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print all samples as one JSON document.")
    ] = False,
) -> None:
    """Measure speed and memory of a model, with its dense base beside it.

    Nothing else should run meanwhile. Both models are loaded and measured in turn; shown
    are medians and, with ±, half the distance between the best and the worst run.

    Decoding has to read nearly all weights for each token, so the memory's bandwidth,
    measured here too, limits it: 'of bandwidth' says how close it comes.
    """
    context = open_context(threads=threads)
    context.require_models()
    settings, store = context.settings, context.store
    name = model or _made_last(store)
    beside = _dense_of(store, store.model(name)) if dense else None
    from subllm.engine.compare import measure_models
    from subllm.engine.computing import Computing

    machine = _machine(settings)
    speeds = measure_models(
        store,
        [name] if beside is None else [name, beside],
        computing=Computing.of(settings),
        prompt_tokens=prompt_tokens,
        tokens=tokens,
        repeat=repeat,
        on_round=lambda number: console.note(f"round {number} of {repeat}"),
    )
    if json_output:
        workload = {"prompt_tokens": prompt_tokens, "tokens": tokens, "repeat": repeat}
        models = [_document(speed, machine["read_bandwidth"]) for speed in speeds]
        console.emit_json({"machine": machine, "workload": workload, "models": models})
        return
    _show(speeds, machine, prompt_tokens)


def _made_last(store: Store) -> str:
    """The sub-model whose run record is the youngest; without one, a dense model."""
    from subllm.errors import StoreError
    from subllm.models.store.names import kind_of, split_model_name

    found: list[tuple[bool, str, str]] = []
    for name, digest in store.names().items():
        if kind_of(name) == "base":
            continue
        try:
            run = store.run_record(digest)
        except StoreError:
            run = None
        pruned = split_model_name(name).language != "dense"
        found.append((pruned, run.created if run else "", name))
    name = max(found)[2]
    if len(found) > 1:
        console.note(f"measuring {name}, the one made last; name another to measure that")
    return name


def _dense_of(store: Store, manifest: ModelManifest) -> str | None:
    """The stored dense model of the same base, if `manifest` is not dense itself."""
    from subllm.models.store.manifest import ModelManifest
    from subllm.models.store.names import model_name

    if manifest.language == "dense":
        return None
    base = manifest.base.name
    name = model_name(base, "dense")
    stored = store.manifest(name) if name in store.names() else None
    if isinstance(stored, ModelManifest) and stored.base.manifest == manifest.base.manifest:
        return name
    console.note(f"to see the dense base beside it, run 'subllm add {base}' first")
    return None


def _machine(settings: Settings) -> dict[str, Any]:
    """Bandwidth and kernels are None where the packed weights are not computed on."""
    from subllm.engine.bandwidth import read_bandwidth
    from subllm.engine.choice import choose_backend
    from subllm.kernels.native import core
    from subllm.machine import cpu_name, usable_cores

    backend = choose_backend(settings.backend, settings.device)
    threads: int = min(settings.threads or usable_cores(), core().usable_cpus())
    native = backend == "native"
    return {
        "cpu": cpu_name(),
        "threads": threads,
        "backend": backend,
        "kernels": (os.environ.get("SUBLLM_ISA") or core().isas()[0]) if native else None,
        "read_bandwidth": read_bandwidth(threads) if native else None,
    }


def _show(speeds: list[ModelSpeed], machine: dict[str, Any], prompt_tokens: int) -> None:
    from subllm.engine.measure import FIRST_PROMPT, SEQUENCES

    bandwidth: float | None = machine["read_bandwidth"]
    roles = ("model", "beside it")
    facts = [(role, _made_of(speed)) for role, speed in zip(roles, speeds, strict=False)]
    facts.append(("machine", f"{machine['cpu']}, {machine['threads']} threads"))
    facts.append(("backend", f"{machine['backend']} {machine['kernels'] or ''}".rstrip()))
    if bandwidth is not None:
        facts.append(("memory", f"reads {bandwidth / 1e9:.1f} GB/s"))
    console.facts(facts)
    console.result("")

    def row(title: str, cells: list[str], values: Sequence[float | None]) -> list[str]:
        ratio = []
        if len(values) == 2:
            ours, theirs = values
            ratio = [f"{ours / theirs:.2f}x" if ours and theirs else ""]
        return [title, *cells, *ratio]

    def series(title: str, every: list[Series], scale: float, digits: int) -> list[str]:
        cells = [f"{s.median * scale:,.{digits}f} ±{s.spread:4.1%}" for s in every]
        return row(title, cells, [s.median for s in every])

    def number(title: str, values: Sequence[float | None], form: str, scale: float) -> list[str]:
        cells = ["" if v is None else format(v * scale, form) for v in values]
        return row(title, cells, values)

    per_second = [speed.bytes_per_second for speed in speeds]
    rows = [
        series(f"prefill of {prompt_tokens:,}, tok/s", [s.prefill for s in speeds], 1, 1),
        series("decode, tok/s", [s.decode for s in speeds], 1, 1),
        series(f"decode of {SEQUENCES} together, tok/s", [s.batch_decode for s in speeds], 1, 1),
        series(f"first token after {FIRST_PROMPT}, ms", [s.first_token for s in speeds], 1e3, 2),
    ]
    if bandwidth is not None:
        read = [speed.weight_bytes for speed in speeds]
        share = [value and value / bandwidth for value in per_second]
        rows += [
            number("weights read per token, MB", read, ",.1f", 1e-6),
            number("weights read in decode, GB/s", per_second, ",.1f", 1e-9),
            number("of bandwidth", share, ".0%", 1),
        ]
    growth: list[float | None] = [speed.resident_growth for speed in speeds]
    rows.append(number("memory growth, MB", growth, ",.1f", 1e-6))
    columns: list[str | tuple[str, console.Align]] = ["", ("MODEL", "right")]
    if len(speeds) == 2:
        columns += [("BESIDE IT", "right"), ("RATIO", "right")]
    console.table(columns, rows)


def _made_of(speed: ModelSpeed) -> str:
    manifest = speed.manifest
    return f"{manifest.name}  {manifest.pattern}, {manifest.values}, head {manifest.head}"


def _document(speed: ModelSpeed, bandwidth: float | None) -> dict[str, Any]:
    manifest, per_second = speed.manifest, speed.bytes_per_second

    def series(values: Series) -> dict[str, Any]:
        return {"median": values.median, "spread": values.spread, "samples": list(values.samples)}

    return {
        "name": manifest.name,
        "digest": speed.digest,
        "pattern": manifest.pattern,
        "values": manifest.values,
        "head": manifest.head,
        "prefill_tokens_per_second": series(speed.prefill),
        "decode_tokens_per_second": series(speed.decode),
        "batch_decode_tokens_per_second": series(speed.batch_decode),
        "first_token_seconds": series(speed.first_token),
        "weight_bytes_per_token": speed.weight_bytes,
        "decode_bytes_per_second": per_second,
        "read_bandwidth_share": per_second and bandwidth and per_second / bandwidth,
        "resident_growth_bytes": speed.resident_growth,
    }
