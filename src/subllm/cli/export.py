"""`subllm export`: a model as files for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from subllm.cli import console
from subllm.cli.context import complete_stored_model, open_context

EXAMPLES = """
subllm export qwen2.5-coder:0.5b-python --to ./python
subllm export qwen2.5-coder:0.5b-python --to ./gguf --format gguf
subllm export qwen2.5-coder:0.5b-dense --to ./q8 --format gguf --type q8_0
"""


def command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A model of the store.", autocompletion=complete_stored_model
        ),
    ],
    to: Annotated[
        Path, typer.Option("--to", metavar="DIR", help="Directory to make; its parent must exist.")
    ],
    format_name: Annotated[
        str, typer.Option("--format", help="hf, gguf or compressed-tensors.")
    ] = "hf",
    kind: Annotated[
        str | None,
        typer.Option(
            "--type",
            help="Of the weights. hf: bf16 (default), f16, f32. gguf: auto (default), q8_0, f16. "
            "compressed-tensors: bf16 (default), f16.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an earlier export in DIR.")
    ] = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON document.")
    ] = False,
) -> None:
    """Write a model for transformers, vLLM or llama.cpp.

    Zeros are written out: others run a sub-model as the dense model that it once was, as fast and
    as large as that. Packed and sparse it runs in subllm alone. With the weights come tokenizer,
    chat template, a model card (README.md) and the base's licence.

    hf: safetensors for transformers and vLLM. int8 and int4 are rounded to the type; with f32
    nothing is.

    gguf: one file for llama.cpp. With auto values keep their codes: bf16 becomes BF16; int8
    Q8_0, exactly; int4 of pruned matrices Q4_0, its scales rounded to 16 bits; int4 of dense
    ones Q4_K, exactly, where the base had it so, else Q4_1, scales rounded. q8_0 writes Q8_0
    for all of them, f16 F16; rows that are no multiple of 32 are F16. Norms and biases are F32.

    compressed-tensors: 2:4 alone, as its sparse-24-bitmask, half the size. vLLM read that up to
    0.18, compressed-tensors before 0.15: today vLLM gains nothing from zeros, so use hf for it.
    """
    from subllm.cli.progress_bars import RichProgress
    from subllm.sharing.export.export import export_model

    store = open_context().store
    with RichProgress() as progress:
        report = export_model(store, name, to, format_name, kind, force=force, progress=progress)
    if json_output:
        console.emit_json(
            {
                "name": report.name,
                "format": report.format,
                "type": report.type,
                "directory": str(report.directory),
                "files": report.files,
                "bytes": report.nbytes,
                "tensors": report.tensors,
                "notes": list(report.notes),
                "seconds": report.seconds,
            }
        )
        return
    types = sorted(report.tensors.items(), key=lambda item: -item[1])
    console.facts(
        [
            ("name", report.name),
            ("format", f"{report.format}, {report.type}"),
            ("directory", str(report.directory)),
            ("size", console.size(report.nbytes)),
            ("tensors", ", ".join(f"{count} {kind}" for kind, count in types)),
            ("time", console.duration(report.seconds)),
        ]
    )
    for note in report.notes:
        console.warn(note)
