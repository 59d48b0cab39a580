"""What was measured, as ways of the report, and the files that tell it."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subllm.measuring.report import pareto
from subllm.measuring.report.files import write_file

from .quality import Quality
from .speed import Speeds
from .ways import PEER, REFERENCE, Served

BITS = (
    "llama.cpp's other types are made from the base's 4-bit file, which is all there is: Q8_0 "
    "shows what eight bits cost, not what they would keep of unrounded weights, and Q3_K_S rounds "
    "twice. 'Drafts' are speculation as served (auto); lookup N is llama-cpp-python's prompt "
    "lookup, its drafts verified in one call of llama.cpp."
)
_ONE_ROUND = datetime.timedelta(hours=1)


@dataclass(frozen=True)
class Cell:
    """One way with what is known of it. borrowed: its quality is that of plain decoding, which
    writes the same; equal: (texts that are the same as the judged ones, texts compared)."""

    served: Served
    speeds: Speeds | None
    quality: Quality | None
    borrowed: bool
    equal: tuple[int, int]


def compared(speeds: Speeds | None, quality: Quality | None) -> tuple[int, int]:
    """How many texts of the speed's rounds are those that were judged, of how many."""
    if speeds is None or quality is None:
        return 0, 0
    both = [
        (text, quality.kept[name]) for name, text in speeds.texts.items() if name in quality.kept
    ]
    return sum(one == other for one, other in both), len(both)


def read_per_token(served: Served, speeds: Speeds | None) -> float | None:
    """Bytes of weights read for a token that stays: with drafts fewer of the model's, as a step
    gives several, and those of the draft model for every token that it drafts."""
    if not served.way.drafts:
        return served.read
    if speeds is None or not speeds.tokens_per_step:
        return None
    decoded = sum(one["decoded"] for one in speeds.samples)
    drafted = sum(one["drafts"].get("draft drafted", 0) for one in speeds.samples)
    return served.read / speeds.tokens_per_step + served.draft_read * drafted / decoded


def way(cell: Cell, bandwidth: float | None) -> pareto.Way:
    """bandwidth: bytes per second that the machine reads at most, None where it was not asked."""
    rate = cell.speeds.rate if cell.speeds else None
    read = read_per_token(cell.served, cell.speeds)
    share = rate * read / bandwidth if rate and read and bandwidth else None
    quality = cell.quality
    return pareto.Way(
        cell.served.way.title,
        cell.served.way.family,
        rate,
        quality.value if quality else None,
        quality.low if quality else None,
        quality.high if quality else None,
        read,
        share,
    )


def notes(cells: Sequence[Cell]) -> list[str]:
    """What a reader must know of single ways."""
    said = []
    for cell in cells:
        title, quality = cell.served.way.title, cell.quality
        if cell.speeds and cell.speeds.failed:
            said.append(f"{title}: not measured, {cell.speeds.failed}")
        if quality and quality.version != cell.served.version:
            said.append(f"{title}: judged as version {quality.version} of the engine wrote")
        same, count = cell.equal
        if count and same < count and not cell.borrowed:
            said.append(f"{title}: {count - same} of {count} texts differ from those judged")
        if cell.speeds and cell.speeds.tokens_per_step and cell.served.way.drafts:
            said.append(f"{title}: {cell.speeds.tokens_per_step:.2f} tokens a step")
    for family in dict.fromkeys(cell.served.way.family for cell in cells):
        borrowed = [cell for cell in cells if cell.borrowed and cell.served.way.family == family]
        if borrowed:
            equal = sum(cell.equal[0] for cell in borrowed)
            count = sum(cell.equal[1] for cell in borrowed)
            titles = "; ".join(cell.served.way.title for cell in borrowed)
            said.append(
                f"judged by the texts of plain decoding: {titles}. Of {count} timed texts {equal} "
                "are the same"
            )
    return said


def mixed(cells: Sequence[Cell]) -> str:
    """A warning where speeds were not measured side by side, "" where they were."""
    spreads = []
    for number in {n for cell in cells if cell.speeds for n in cell.speeds.rounds}:
        times = [
            datetime.datetime.fromisoformat(cell.speeds.rounds[number]["at"])
            for cell in cells
            if cell.speeds and number in cell.speeds.rounds
        ]
        spreads.append(max(times) - min(times))
    widest = max(spreads, default=datetime.timedelta())
    if widest <= _ONE_ROUND:
        return ""
    return (
        f"speeds of one round were measured up to {widest} apart: --again-speed measures all side "
        "by side"
    )


def documents(
    base: str, cells: Sequence[Cell], machine: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, str | bytes]:
    """Name -> content of the files: table as text and Markdown, all figures as JSON, and the
    picture where something has both figures. Raises MissingExtraError without matplotlib."""
    bandwidth = machine.get("read_bandwidth")
    ways = [way(cell, bandwidth) for cell in cells]
    title = f"{base}: decoding speed against greedy pass@1 on HumanEval-X Python"
    if settings["problems"] < settings["of"]:
        title += f", the first {settings['problems']} problems"
    where = f"{machine['cpu']}, {machine['threads']} threads"
    if bandwidth:
        where += f", reads {bandwidth / 1e9:.1f} GB/s"
    said = [*pareto.statements(ways), *notes(cells)]
    if any(cell.served.way.family == PEER for cell in cells):
        said.append(BITS)
    warning = mixed(cells)
    if warning:
        said.append(warning)
    table = pareto.table(ways, REFERENCE, title)
    head = f"{where}; medians of {settings['rounds']} interleaved rounds"
    record = {
        "base": base,
        "machine": machine,
        "settings": settings,
        "ways": [_record(cell, one) for cell, one in zip(cells, ways, strict=True)],
        "front": [one.title for one in pareto.front(ways)],
        "statements": pareto.statements(ways),
        "notes": notes(cells),
    }
    text = table.plain(110) + "\n" + "\n".join([head, *said]) + "\n"
    lines = "\n".join(f"- {line}" for line in [head, *said])
    found: dict[str, str | bytes] = {
        "txt": text,
        "md": table.markdown() + "\n" + lines + "\n",
        "json": json.dumps(record, indent=1, ensure_ascii=False) + "\n",
    }
    picture = pareto.picture(ways, title, head)
    if picture is not None:
        found["png"] = picture
    return found


def write(directory: Path, base: str, found: Mapping[str, str | bytes]) -> list[Path]:
    stem = "pareto-" + base.replace(":", "-")
    return [write_file(directory / f"{stem}.{kind}", found[kind]) for kind in found]


def _record(cell: Cell, one: pareto.Way) -> dict[str, Any]:
    speeds, quality = cell.speeds, cell.quality
    return {
        "title": one.title,
        "family": one.family,
        "model": cell.served.model.model_dump(mode="json"),
        "draft": cell.served.draft or None,
        "engine": cell.served.version,
        "tokens_per_second": one.speed,
        "samples": [s["decoded"] / s["seconds"] for s in speeds.samples] if speeds else [],
        "tokens_per_step": speeds.tokens_per_step if speeds else None,
        "facts": speeds.facts if speeds else {},
        "failed": (speeds.failed or None) if speeds else None,
        "bytes_per_token": one.bytes,
        "bandwidth_share": one.share,
        "pass@1": one.quality,
        "interval": [one.low, one.high],
        "passed": sorted(name for name, ok in quality.passed.items() if ok) if quality else None,
        "judged_engine": quality.version if quality else None,
        "judged_as_plain": cell.borrowed,
        "texts_equal": list(cell.equal),
    }
