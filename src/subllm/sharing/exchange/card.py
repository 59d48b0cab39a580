"""README.md of a place of shared models: what they are, how they were made, what they kept."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from subllm.models.acquire.share.index import LICENCE
from subllm.models.store.hub_licences import HUB_LICENCES
from subllm.models.store.manifest import ModelManifest

_DENSE = "dense"


def licence_text(models: Sequence[ModelManifest]) -> str:
    """The licences of the bases, each once."""
    texts = dict.fromkeys(
        model.base.licence.text.strip() or f"{model.base.licence.id} (came without its text)"
        for model in models
    )
    return f"\n\n{'-' * 78}\n\n".join(texts) + "\n"


def card(title: str, pull: str, models: Sequence[ModelManifest], sizes: Mapping[str, int]) -> str:
    """title  of the page
    pull   what `subllm pull` is given to fetch them
    sizes  bytes of each blob"""
    parts = [
        _front(models),
        f"# {title}",
        _intro(models),
        f"```sh\nsubllm pull {pull}\n"
        f'subllm complete --model {models[0].name} "def median(numbers):"\n```',
        _table(models, sizes),
        "What perplexity and agreement are measured on is held-out text; tasks lose more than "
        "they tell. `subllm eval NAME` measures what a model solves beside its dense base.",
        *(_made(model) for model in models),
        _terms(models),
    ]
    return "\n\n".join(parts) + "\n"


def _front(models: Sequence[ModelManifest]) -> str:
    """What the hub reads."""
    ids = list(dict.fromkeys(model.base.licence.id for model in models))
    known = HUB_LICENCES.get(ids[0]) if len(ids) == 1 else None
    facts: dict[str, Any] = {"license": known or "other"}
    if known is None:
        names = "-".join(re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-") for name in ids)
        facts |= {"license_name": names[:60], "license_link": LICENCE}
    sources = dict.fromkeys(model.base.source for model in models)
    bases = [source.removeprefix("hub:") for source in sources if source.startswith("hub:")]
    if bases:
        facts |= {"base_model": bases, "base_model_relation": "quantized"}
    languages = sorted({model.language for model in models} - {_DENSE})
    facts |= {
        "library_name": "subllm",
        "pipeline_tag": "text-generation",
        "tags": ["subllm", "code", "pruning", "sparse", *languages],
    }
    # JSON is YAML: nothing that a name holds can mean something else.
    lines = [f"{key}: {json.dumps(value)}" for key, value in facts.items()]
    return "\n".join(["---", *lines, "---"])


def _intro(models: Sequence[ModelManifest]) -> str:
    bases = ", ".join(dict.fromkeys(model.base.name for model in models))
    return (
        f"Made by subllm from {bases}: of a code model the part that serves one programming "
        "language, pruned and packed for sparse kernels. They are served on one machine, to "
        "editors and terminals, by `subllm serve`. Tokenizer and configuration are in them; the "
        "base is not needed."
    )


def _table(models: Sequence[ModelManifest], sizes: Mapping[str, int]) -> str:
    rows = [
        "| model | kept | values | own size | perplexity, dense -> here | agreement |",
        "|---|---|---|---|---|---|",
    ]
    for model in models:
        measured = model.perplexity.get(model.language)
        loss = agreement = ""
        if measured is not None:
            change = measured.after / measured.before - 1
            loss = f"{measured.before:.3f} -> {measured.after:.3f} ({change:+.1%})"
            if measured.agreement is not None:
                agreement = f"{measured.agreement:.1%}"
        own = f"{sizes[model.blobs.own] / 1e6:,.1f} MB"
        cells = (model.name, f"{model.density:.1%}", model.values, own, loss, agreement)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    shared = dict.fromkeys(model.blobs.shared for model in models)
    total = sum(sizes[blob] for blob in shared) / 1e6
    return (
        "\n".join(rows) + f"\n\nEmbedding and head, shared by models of one base: {total:,.1f} MB."
    )


def _made(model: ModelManifest) -> str:
    params = ", ".join(f"{key} {value}" for key, value in model.method.params.items())
    lines = [
        f"## {model.name}",
        "",
        f"- base: {model.base.name}, {model.base.source}"
        + (f" at {model.base.revision}" if model.base.revision else ""),
        f"- method: {model.method.name}" + (f" ({params})" if params else ""),
        f"- pattern: {model.pattern}, {model.density:.1%} of the block weights kept, values "
        f"{model.values}, head {model.head}",
    ]
    if model.calibration is not None:
        data = model.calibration
        lines.append(f"- calibration: {data.source}, {data.samples} x {data.seq_len} tokens")
    if model.recovery is not None:
        learned = model.recovery
        lines.append(
            f"- recovery: learned from the dense base on {learned.tokens:,} tokens of "
            f"{learned.source}; agreement with it {learned.before.agreement:.1%} -> "
            f"{learned.after.agreement:.1%} before packing"
        )
    for tuning in model.tunings:
        lines.append(f"- tuned: from {tuning.origin}, on {tuning.tokens:,} tokens")
    return "\n".join(lines)


def _terms(models: Sequence[ModelManifest]) -> str:
    ids = ", ".join(dict.fromkeys(model.base.licence.id for model in models))
    return (
        "## Licence\n\n"
        f"The weights are those of the base, changed as told above; its licence holds for them: "
        f"{ids}, see {LICENCE}."
    )
