"""The model card: README.md with what the hub reads at its top, and the licence beside it."""

from __future__ import annotations

import re
from typing import Any

import yaml

from subllm import __version__
from subllm.models.store.hub_licences import HUB_LICENCES
from subllm.models.store.manifest import CalibrationRecord, Likeness, ModelManifest


def licence_text(manifest: ModelManifest) -> bytes | None:
    """LICENSE, where the base came with a text."""
    text = manifest.base.licence.text
    return text.encode() if text else None


def card(manifest: ModelManifest, title: str, usage: str, notes: list[str]) -> bytes:
    """title: what was exported, in words; usage: how to load it, Markdown; notes: sentences."""
    parts = [
        f"---\n{yaml.safe_dump(_front(manifest), sort_keys=False, allow_unicode=True)}---\n",
        f"# {manifest.name}\n",
        f"{_what(manifest)} {title}\n",
        *(f"**Note.** {note}.\n" for note in notes),
        f"## Use\n\n{usage}\n",
        f"## What it keeps\n\n{_losses(manifest)}",
        f"## How it was made\n\n{_table(_made(manifest))}",
        f"## Licence\n\nThe weights are derived from {_source(manifest)} and stay under its "
        f"licence, {manifest.base.licence.id}"
        f"{' (LICENSE)' if manifest.base.licence.text else ''}.\n",
    ]
    return "\n".join(parts).encode()


def _front(manifest: ModelManifest) -> dict[str, Any]:
    licence = manifest.base.licence.id
    known = HUB_LICENCES.get(licence)
    front: dict[str, Any] = {"license": known or "other"}
    if known is None:
        front["license_name"] = licence.removeprefix("LicenseRef-").lower()
        if manifest.base.licence.text:
            front["license_link"] = "LICENSE"
    if manifest.base.source.startswith("hub:"):
        front["base_model"] = manifest.base.source.removeprefix("hub:")
    front["pipeline_tag"] = "text-generation"
    front["tags"] = ["code", "subllm", "pruned" if _pruned(manifest) else "quantized"]
    if manifest.language not in ("dense", "general"):
        front["tags"].append(manifest.language)
    return front


def _pruned(manifest: ModelManifest) -> bool:
    return any(entry.pattern != "dense" for entry in manifest.tensors)


def _what(manifest: ModelManifest) -> str:
    if not _pruned(manifest):
        return f"{manifest.base.name}, unpruned, as subllm packs it."
    return (
        f"A sub-model of {manifest.base.name} for {manifest.language}: "
        f"{manifest.density:.1%} of the weights of its blocks are kept, the others are zero."
    )


def public(source: str) -> str:
    """A source without the directories of this machine."""
    return re.sub(r"path:[^,=]*/(?=[^/,=]+)", "path:", source)


def _source(manifest: ModelManifest) -> str:
    base = manifest.base
    revision = f" at {base.revision}" if base.revision else ""
    return f"{base.name} ({public(base.source)}{revision})"


def _losses(manifest: ModelManifest) -> str:
    rows = []
    for domain, value in manifest.perplexity.items():
        agreement = "" if value.agreement is None else f"{value.agreement:.1%}"
        rows.append(
            f"| {domain} | {value.tokens:,} | {value.before:.3f} | {value.after:.3f} | "
            f"{agreement} |"
        )
    if not rows:
        return "Nothing was measured when it was made.\n"
    head = (
        "| held-out text | tokens | perplexity, dense base | perplexity, this model | "
        "first choice is the dense base's |\n|---|---|---|---|---|\n"
    )
    return (
        head + "\n".join(rows) + "\n\nMeasured by subllm on the packed weights. Perplexity hardly "
        "shows what code loses: look at what it writes before you rely on it.\n"
    )


def _made(manifest: ModelManifest) -> list[tuple[str, str]]:
    method = manifest.method
    params = ", ".join(f"{key} {value}" for key, value in method.params.items())
    rows = [
        ("base", _source(manifest)),
        ("method", method.name + (f" ({params})" if params else "")),
        ("pattern", f"{manifest.pattern}, {manifest.density:.1%} of the block weights kept"),
        ("values", f"{manifest.values}, head and embedding {manifest.head}"),
    ]
    if manifest.calibration is not None:
        rows.append(("calibration", _calibration(manifest.calibration)))
    recovery = manifest.recovery
    if recovery is not None:
        rows.append(
            (
                "recovery",
                f"{recovery.tokens:,} tokens of {public(recovery.source)}, the mask fixed: "
                f"{_change(recovery.before, recovery.after)}",
            )
        )
    for tuning in manifest.tunings:
        rows.append(
            (
                "tuning",
                f"from {tuning.origin} on {tuning.tokens:,} tokens of {public(tuning.source)}: "
                f"{_change(tuning.before, tuning.after)}",
            )
        )
    return [*rows, ("plan", manifest.plan), ("exported by", f"subllm {__version__}")]


def _calibration(record: CalibrationRecord) -> str:
    return (
        f"{public(record.source)}, {record.samples} x {record.seq_len} tokens, seed {record.seed}, "
        f"digest {record.digest}"
    )


def _change(before: Likeness, after: Likeness) -> str:
    return (
        f"first choices as dense {before.agreement:.1%} to {after.agreement:.1%}, "
        f"KL {before.kl:.3f} to {after.kl:.3f} nats on held-out text, before packing"
    )


def _table(rows: list[tuple[str, str]]) -> str:
    return "| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows)
