"""The models of a study: found in the store, or to be made.

A sub-model is the wanted one when base, method, pattern, value types and calibration are the
same, whatever its name and whatever text its loss was measured on. A name that another model
has is never taken from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from subllm.errors import StoreError, UsageError
from subllm.kernels.sparsity.layout import LAYOUT_VERSION
from subllm.kernels.sparsity.pattern import Pattern
from subllm.languages import DENSE, GENERAL
from subllm.making.pruning.allocation import Allocation
from subllm.measuring.evaluation.bench import Bench
from subllm.measuring.evaluation.study.ground import Ground
from subllm.measuring.evaluation.study.options import Calibration, StudyOptions
from subllm.models.catalog.loader import Catalog
from subllm.models.store.manifest import ModelManifest
from subllm.models.store.names import model_name
from subllm.models.store.store import Store
from subllm.progress import bar

if TYPE_CHECKING:
    from subllm.making.extraction.plan import ExtractionPlan
    from subllm.making.extraction.prepare import Prepared

_USUAL = ("wanda", "8:16", "int8", "int8")  # what `base-language` without a tag stands for
_DENSE_BYTES_PER_SECOND = 1e8  # packing without pruning; measured on two cores


@dataclass(frozen=True)
class Candidate:
    """name     in the store, or that it will have
    domain   that its calibration is from, as in `Calibration.domain`
    source   of its calibration, "" for none
    stored   whether it is there
    seconds  that making it will take
    make     makes it
    """

    ground: Ground
    name: str
    language: str
    domain: str
    source: str
    method: str
    pattern: str
    stored: bool
    bytes_per_token: float
    seconds: float
    make: Callable[[], None]


@dataclass(frozen=True)
class _Recipe:
    method: str
    pattern: str
    calibration: Calibration


def find_models(
    bench: Bench, catalog: Catalog, options: StudyOptions, grounds: Sequence[Ground]
) -> list[Candidate]:
    """Of each base the dense model, then every method, pattern and calibration. A method that
    needs no calibration has one sub-model, `general`.

    Reads and tokenizes all calibration data, writes nothing. Raises what
    `extraction.prepare.prepare` raises.
    """
    found: list[Candidate] = []
    taken: set[str] = set()
    with bar(bench.progress, "models", "looking up models", _count(options), "items"):
        for ground in grounds:
            found.append(_dense(bench, ground, options))
            bench.progress.advance("models")
            for recipe in _recipes(options):
                one = _sub_model(bench, catalog, options, ground, recipe, taken)
                taken.add(one.name)
                found.append(one)
                bench.progress.advance("models")
    return found


def named_models(
    bench: Bench, catalog: Catalog, options: StudyOptions, grounds: Sequence[Ground]
) -> list[Candidate]:
    """Those of `StudyOptions.models`, in their order. Raises UnknownNameError, and UsageError
    for one whose base has gone."""
    found = []
    by_base = {ground.digest: ground for ground in grounds}
    for name in options.models:
        manifest = bench.store.model(name)
        calibration = manifest.calibration
        source = calibration.source if calibration else ""
        ground = by_base.get(manifest.base.manifest)
        if ground is None:
            raise UsageError(
                f"{name} was made from another {manifest.base.name} than is in the store now; "
                f"'subllm rm' the model, or measure it with 'subllm eval'"
            )
        files = (manifest.blobs.own, manifest.blobs.shared)
        found.append(
            Candidate(
                ground=ground,
                name=name,
                language=manifest.language,
                domain=Calibration(manifest.language, source).domain(catalog),
                source=source,
                method=manifest.method.name,
                pattern=manifest.pattern,
                stored=True,
                bytes_per_token=float(sum(map(bench.store.blobs.size, files))),
                seconds=0.0,
                make=lambda: None,
            )
        )
    return found


def _recipes(options: StudyOptions) -> Iterator[_Recipe]:
    # Imported late, with torch.
    from subllm.making.pruning.registry import get_method

    for method in options.methods:
        calibrated = bool(get_method(method).needs)
        calibrations = options.calibrations if calibrated else (Calibration(GENERAL),)
        for pattern in options.patterns:
            for calibration in calibrations:
                yield _Recipe(method, pattern, calibration)


def _count(options: StudyOptions) -> int:
    return len(options.bases) * (1 + sum(1 for _ in _recipes(options)))


def _sub_model(
    bench: Bench,
    catalog: Catalog,
    options: StudyOptions,
    ground: Ground,
    recipe: _Recipe,
    taken: set[str],
) -> Candidate:
    from subllm.making.extraction.extract import extract
    from subllm.making.extraction.plan import value_type
    from subllm.making.extraction.prepare import ExtractOptions, prepare

    store, progress, calibration = bench.store, bench.progress, recipe.calibration
    asked = ExtractOptions(
        language=calibration.language,
        method=recipe.method,
        pattern=recipe.pattern,
        values=options.values,
        head=options.head,
        calibration=calibration.source,
        samples=options.sequences,
        seq_len=options.length,
        device=bench.device,
        offline=bench.offline,
    )
    prepared = prepare(store, ground.name, asked, catalog, progress)
    plan = prepared.plan
    stored = _stored(store, plan, prepared.name)
    name, tag = stored or "", ""
    if stored is None:
        name, tag = _free_name(store, ground.name, calibration, plan, taken)

    def make() -> None:
        _rename(prepared, name, tag)
        extract(store, prepared, progress, threads=bench.threads)

    return Candidate(
        ground=ground,
        name=name,
        language=calibration.language,
        domain=calibration.domain(catalog) if plan.calibration else "",
        source=plan.calibration.source if plan.calibration else "",
        method=recipe.method,
        pattern=str(plan.allocation),
        stored=stored is not None,
        bytes_per_token=ground.bytes_per_token(
            plan.allocation, value_type(options.values), value_type(options.head)
        ),
        seconds=0.0 if stored else prepared.estimate.seconds + prepared.estimate.packing,
        make=make,
    )


def _rename(prepared: Prepared, name: str, tag: str) -> None:
    prepared.name = name
    prepared.options = replace(prepared.options, tag=tag)


def _dense(bench: Bench, ground: Ground, options: StudyOptions) -> Candidate:
    from subllm.making.extraction.dense import DenseForm, add_dense
    from subllm.making.extraction.plan import value_type

    store = bench.store
    wanted = {
        "language": DENSE, "base": ground.digest, "pattern": DENSE, "values": options.values,
        "head": options.head, "layout": LAYOUT_VERSION,
    }  # fmt: skip
    values, head = value_type(options.values), value_type(options.head)
    usual = model_name(ground.name, DENSE)
    names = [name for name, manifest in _models(store)
             if {**_facts(manifest), **wanted} == _facts(manifest)]  # fmt: skip
    tag = ""
    if not names and usual in store.names():
        tag = options.values if options.values == options.head else f"{values}-{head}"
    name = _preferred(names, usual) or model_name(ground.name, DENSE, tag)
    size = ground.bytes_per_token(Allocation(Pattern.parse(DENSE)), values, head)

    def make() -> None:
        add_dense(store, ground.name, bench.progress, DenseForm(values, head), tag=tag)

    return Candidate(
        ground=ground,
        name=name,
        language=DENSE,
        domain="",
        source="",
        method="none",
        pattern=DENSE,
        stored=bool(names),
        bytes_per_token=size,
        seconds=0.0 if names else size / _DENSE_BYTES_PER_SECOND,
        make=make,
    )


def _stored(store: Store, plan: ExtractionPlan, usual: str) -> str | None:
    """The stored model that this plan would make, but for the text its loss is measured on."""
    wanted = {
        "language": plan.language, "base": plan.base, "pattern": str(plan.allocation),
        "values": plan.values, "head": plan.head, "layout": LAYOUT_VERSION,
        "method": plan.method, "calibration": plan.calibration,
    }  # fmt: skip
    names = [name for name, manifest in _models(store) if _facts(manifest) == wanted]
    return _preferred(names, usual)


def _facts(manifest: ModelManifest) -> dict[str, Any]:
    return {
        "language": manifest.language, "base": manifest.base.manifest, "pattern": manifest.pattern,
        "values": manifest.values, "head": manifest.head, "layout": manifest.layout,
        "method": manifest.method, "calibration": manifest.calibration,
    }  # fmt: skip


def _models(store: Store) -> Iterator[tuple[str, ModelManifest]]:
    """Of the store, those that are whole."""
    for name, digest in store.names().items():
        try:
            manifest = store.manifest(digest)
        except StoreError:
            continue  # another model's damage; verify tells
        if isinstance(manifest, ModelManifest) and all(
            map(store.blobs.has, (manifest.blobs.own, manifest.blobs.shared))
        ):
            yield name, manifest


def _preferred(names: Sequence[str], usual: str) -> str | None:
    if usual in names:
        return usual
    return names[0] if names else None


def _free_name(
    store: Store, base: str, calibration: Calibration, plan: ExtractionPlan, taken: set[str]
) -> tuple[str, str]:
    """(name, tag) that no model has: without a tag for the usual recipe, else by method and
    pattern, else by the plan's digest."""
    language = calibration.language
    recipe = (plan.method.name, str(plan.allocation), plan.values, plan.head)
    described = re.sub(r"[^a-z0-9]+", "_", f"{plan.method.name}_{plan.allocation}").strip("_")
    if recipe[2:] != _USUAL[2:]:
        described += f"-{plan.values}-{plan.head}"
    own = plan.digest.removeprefix("sha256-")[:8]
    tags = [described, f"{described}-{own}"]
    if recipe == _USUAL and not calibration.source:
        tags.insert(0, "")
    used = store.names().keys() | taken
    tag = next((tag for tag in tags if model_name(base, language, tag) not in used), tags[-1])
    return model_name(base, language, tag), tag
