"""Everything there is to show of a comparison of masks, as files in one directory.

masks.jsonl     the counts; read_comparison reads them again
masks.md        all tables
masks.csv       every pair in every matrix
masks-models.png, masks-types.png, masks-layers.png
overlay.jsonl, overlay.html    the windows that were looked at
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from subllm.measuring.report.files import write_file
from subllm.measuring.report.masks.overlay import overlay_page
from subllm.measuring.report.masks.pictures import layers_picture, models_picture, types_picture
from subllm.measuring.report.masks.records import Comparison
from subllm.measuring.report.masks.tables import (
    bytes_table,
    distance_table,
    layers_table,
    models_table,
    tidy_table,
)
from subllm.measuring.report.masks.windows import WindowRecord
from subllm.measuring.report.records import to_lines
from subllm.progress import NullProgress, Progress, bar

PICTURES: dict[str, Callable[[Comparison], bytes]] = {
    "masks-models.png": models_picture,
    "masks-types.png": types_picture,
    "masks-layers.png": layers_picture,
}


def write_report(
    comparison: Comparison,
    windows: Sequence[WindowRecord],
    directory: Path,
    progress: Progress | None = None,
) -> list[Path]:
    """Writes the files and returns their paths; older ones of the same names are replaced.

    All are made before the first is written. Raises MissingExtraError without the drawing
    libraries, UsageError when the directory cannot be written to.
    """
    progress = progress or NullProgress()
    files: dict[str, str | bytes] = {
        "masks.jsonl": comparison.to_lines(),
        "masks.md": markdown(comparison),
        "masks.csv": tidy_table(comparison).csv(),
    }
    with bar(progress, "report", "drawing", len(PICTURES) + bool(windows), "items"):
        for name, draw in PICTURES.items():
            files[name] = draw(comparison)
            progress.advance("report")
        if windows:
            title = f"{comparison.header.base}: weights kept, dropped and differing"
            files["overlay.jsonl"] = to_lines(windows)
            files["overlay.html"] = overlay_page(windows, comparison.labels, title)
            progress.advance("report")
    return [write_file(directory / name, content) for name, content in files.items()]


def markdown(comparison: Comparison) -> str:
    """All tables as one page."""
    tables = [models_table(comparison), distance_table(comparison), bytes_table(comparison)]
    tables += [layers_table(comparison, pair) for pair in comparison.pairs]
    return "\n".join([f"# Masks of {comparison.header.base}\n", *(t.markdown() for t in tables)])
