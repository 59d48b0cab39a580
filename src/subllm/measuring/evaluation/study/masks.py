"""The masks of a study's sub-models compared, recipe by recipe."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from subllm.measuring.evaluation.mask_overlap import compare_models
from subllm.measuring.evaluation.mask_windows import Window, mask_windows, middle_layer
from subllm.measuring.evaluation.study.sources import public
from subllm.measuring.report.masks.records import Comparison
from subllm.measuring.report.masks.report import write_report
from subllm.measuring.report.study.records import DENSE, Recipe, Study, recipe_of, row_rank
from subllm.measuring.report.study.report import MASKS, load_comparisons
from subllm.models.store.store import Store
from subllm.progress import Progress


def compare_masks(
    store: Store, names: Iterable[str], study: Study, out: Path, progress: Progress
) -> list[Path]:
    """Compares the models `names` with those of the study that are still in the store, and
    writes what `mask_report` writes to `out`/masks/RECIPE. What was compared before is left
    as it is. Returns the paths of new files."""
    recipes: dict[Recipe, set[str]] = {}
    for name in names:
        recipe = _recipe(store, name)
        if recipe is not None:
            recipes.setdefault(recipe, set()).add(name)
    stored = store.names()
    for model in {cell.model for cell in study.cells if cell.model.language != DENSE}:
        recipe = recipe_of(model)
        if recipe in recipes and stored.get(model.name) == model.digest:
            recipes[recipe].add(model.name)
    known = load_comparisons(out)
    written: list[Path] = []
    for recipe, members in recipes.items():
        ordered = sorted(members, key=lambda name: (row_rank(store.model(name).language), name))
        place = folder(recipe)
        if len(ordered) < 2 or _digests(known.get(place)) == [stored[name] for name in ordered]:
            continue
        comparison = _without_paths(compare_models(store, ordered, progress))
        layers = [middle_layer(comparison.layers)]
        windows = mask_windows(store, ordered, layers, Window())
        written += write_report(comparison, windows, out / MASKS / place, progress)
    return written


def folder(recipe: Recipe) -> str:
    """`qwen2.5-coder-0.5b-wanda-8-16-int8-128x512`."""
    parts = [recipe.base, recipe.method, recipe.pattern.replace("%", "p"), recipe.values]
    if recipe.head != recipe.values:
        parts.append(f"head-{recipe.head}")
    if recipe.sequences:
        parts.append(f"{recipe.sequences}x{recipe.length}")
    return re.sub(r"[^a-z0-9._]+", "-", "-".join(parts).lower())


def _recipe(store: Store, name: str) -> Recipe | None:
    """None for a dense model, which has no mask."""
    model = store.model(name)
    if model.language == DENSE:
        return None
    calibration = model.calibration
    return Recipe(
        base=model.base.name,
        base_digest=model.base.manifest,
        method=model.method.name,
        pattern=model.pattern,
        values=model.values,
        head=model.head,
        sequences=calibration.samples if calibration else 0,
        length=calibration.seq_len if calibration else 0,
    )


def _digests(comparison: Comparison | None) -> list[str]:
    return [model.digest for model in comparison.models] if comparison else []


def _without_paths(comparison: Comparison) -> Comparison:
    header = comparison.header
    models = tuple(
        model.model_copy(
            update={"calibration": public(model.calibration) if model.calibration else None}
        )
        for model in header.models
    )
    return Comparison(header.model_copy(update={"models": models}), comparison.matrices)
