"""Where density stays, as a person reads it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from subllm.cli import console

if TYPE_CHECKING:
    from subllm.cli.context import Context
    from subllm.making.extraction.prepare import ExtractOptions, Prepared
    from subllm.making.extraction.sensitivity.allocate import Chosen
    from subllm.making.pruning.budget import Goal
    from subllm.models.store.manifest import ModelManifest
    from subllm.progress import Progress

_BARS, _PLAIN = "▁▂▃▄▅▆▇█", "12345678"
_WIDTH = 48  # columns of a drawing at most; more layers share them


def goal_of(budget: float | None, keep: float | None) -> Goal | None:
    """What a recipe asks for instead of a pattern."""
    from subllm.making.pruning.budget import Goal

    return None if budget is None and keep is None else Goal(budget, keep)


def said(chosen: Chosen) -> str:
    """One line on an allocation before it is made."""
    return (
        f"{chosen.allocation} reads {chosen.share:.3f} of the bytes that dense int8 reads for a "
        f"token; about {chosen.agreement:.1%} of its first choices expected"
    )


def prepare_for(
    context: Context,
    base: str,
    options: ExtractOptions,
    goal: Goal | None,
    progress: Progress,
    *,
    lay_out: bool = False,
) -> tuple[Prepared, Chosen | None]:
    """An extraction with what was chosen for the goal, where there is one; else, with `lay_out`,
    with the bytes of the options' pattern where they count most, where that is known. Raises as
    `prepare` and `allocate`."""
    from subllm.kernels.sparsity.pattern import Pattern
    from subllm.making.extraction.prepare import prepare
    from subllm.making.extraction.sensitivity.goal import allocate, laid_out

    chosen = None
    if goal is not None:
        chosen = allocate(
            context.store, base, options, goal, context.catalog, progress,
            context.settings.threads,
        )  # fmt: skip
    elif lay_out:
        chosen = laid_out(context.store, base, options, Pattern.parse(options.pattern))
    if chosen is not None:
        options = replace(options, allocation=chosen.allocation)
        console.note(f"{options.language}: {said(chosen)}")
    return prepare(context.store, base, options, context.catalog, progress), chosen


def missed(goal: Goal, chosen: Chosen, manifest: ModelManifest) -> str | None:
    """What to say when less was kept than asked for."""
    found = manifest.perplexity.get(manifest.language)
    if goal.keep is None or found is None or found.agreement is None:
        return None
    if found.agreement >= goal.keep:
        return None
    return (
        f"keep = {goal.keep:g} is missed: {found.agreement:.1%} of the dense base's first choices "
        f"hold on held-out text where {chosen.agreement:.1%} were expected; ask for more"
    )


def summary(manifest: ModelManifest) -> str:
    """What each role keeps, in a line; "" where all matrices have one pattern."""
    if not is_mixed(manifest):
        return ""
    roles = _by_role(densities(manifest))
    return ", ".join(f"{role} {share:.0%}" for role, share in roles.items())


def densities(manifest: ModelManifest) -> list[dict[str, float]]:
    """Share of each matrix that is kept: per layer, by role."""
    from math import prod

    from subllm.models.arch.spec import ArchSpec

    spec = ArchSpec.from_dict(manifest.arch)
    kept = {entry.name: entry.kept / prod(entry.shape) for entry in manifest.tensors}
    return [
        {
            linear.role: kept[f"{spec.block_prefix(layer)}{linear.name}.weight"]
            for linear in spec.linears
        }
        for layer in range(spec.num_layers)
    ]


def patterns(manifest: ModelManifest) -> list[dict[str, str]] | None:
    """Patterns per layer, by role: JSON-ready. None where all matrices have one."""
    from subllm.models.arch.spec import ArchSpec

    if not is_mixed(manifest):
        return None
    spec = ArchSpec.from_dict(manifest.arch)
    of = {entry.name: entry.pattern for entry in manifest.tensors}
    return [
        {
            linear.role: of[f"{spec.block_prefix(layer)}{linear.name}.weight"]
            for linear in spec.linears
        }
        for layer in range(spec.num_layers)
    ]


def is_mixed(manifest: ModelManifest) -> bool:
    """Whether block matrices differ in pattern."""
    matrices = (entry for entry in manifest.tensors if entry.values != "f32")
    return len({entry.pattern for entry in matrices if entry.blob == "own"}) > 1


def draw(layers: Sequence[Mapping[str, float]]) -> None:
    """The densities on stdout: a row for each role, a bar for each layer from the first on.
    Bars rank what there is, as the legend says; with more kinds than bars they are to scale."""
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    bars = _BARS if encoding.startswith("utf") else _PLAIN
    share = -(-len(layers) // _WIDTH)  # layers of a column
    columns = [layers[start : start + share] for start in range(0, len(layers), share)]
    means = {
        role: [sum(layer[role] for layer in column) / len(column) for column in columns]
        for role in layers[0]
    }
    kinds = sorted({density for row in means.values() for density in row})
    if len(kinds) <= len(bars):
        bar_of = dict(zip(kinds, bars[len(bars) - len(kinds) :], strict=True))
    else:
        bar_of = {d: bars[max(round(d * len(bars)), 1) - 1] for d in kinds}
    of = f"one of {share} layers" if share > 1 else "a layer"
    console.result(f"\nwhat each matrix keeps; a column is {of}, the first on the left")
    for role, mean in _by_role(layers).items():
        line = "".join(bar_of[density] for density in means[role])
        console.result(f"  {role:<5} {line}  {mean:4.0%}")
    if len(kinds) <= len(bars):
        console.result("  " + "  ".join(f"{bar} {density:.0%}" for density, bar in bar_of.items()))


def _by_role(layers: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over layers."""
    return {role: sum(layer[role] for layer in layers) / len(layers) for role in layers[0]}


def goal_document(
    goal: Goal | None, chosen: Chosen | None, manifest: ModelManifest
) -> dict[str, Any]:
    """What an extraction's JSON says of its patterns and of the goal that led to them."""
    found: dict[str, Any] = {"patterns": patterns(manifest)}
    if chosen is not None:
        found |= {"bytes_share": chosen.share, "expected_agreement": chosen.agreement}
    if goal is not None:
        found |= {"budget": goal.budget, "keep": goal.keep}
    return found
