"""`subllm add`: make a dense base servable."""

from __future__ import annotations

from typing import Annotated

import typer

from subllm.cli import console
from subllm.cli.asked import explicit
from subllm.cli.bases import BASE_HELP, BASE_NAME_HELP
from subllm.making.extraction.defaults import DENSE_SAMPLES, DENSE_VALUES

EXAMPLES = """
subllm add qwen2.5-coder:0.5b                served as its -dense
subllm add qwen2.5-coder:0.5b --values int8 --tag int8
subllm add ./model.gguf                      a file of your own
"""

_NOT_AGAIN = ("base_name", "json_output")


def command(
    asked: typer.Context,
    base: Annotated[str, typer.Argument(metavar="BASE", help=BASE_HELP)],
    values: Annotated[
        str, typer.Option(help="How weights are stored: int4, int8, bf16.")
    ] = DENSE_VALUES,
    head: Annotated[
        str, typer.Option(help="How head and embedding are stored: bf16, int8, int4.")
    ] = "int8",
    samples: Annotated[
        int,
        typer.Option(
            min=0,
            max=100_000,
            help="Calibration sequences that int4 is rounded by, of all languages alike, where "
            "the base is not mostly 4-bit already; 0: by the weights alone.",
        ),
    ] = DENSE_SAMPLES,
    base_name: Annotated[str, typer.Option(metavar="FAMILY:SIZE", help=BASE_NAME_HELP)] = "",
    tag: Annotated[str, typer.Option(help="Appended to the name, to keep variants apart.")] = "",
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON document.")
    ] = False,
) -> None:
    """Pack the base itself, unpruned, in the layout of its sub-models.

    It answers for languages that have no sub-model, and is what sub-models are compared with.
    int4 keeps the codes of a base that is 4-bit already, and rounds the rest so that what
    comes out on calibration text changes least.
    """
    from subllm.cli.bases import ensure_base
    from subllm.cli.context import open_context
    from subllm.cli.progress_bars import RichProgress

    context = open_context()
    with RichProgress() as progress:
        base = ensure_base(context, base, progress, base_name)
        from subllm.making.extraction.dense import DenseForm, add_dense
        from subllm.making.extraction.made import made_by

        report = add_dense(
            context.store, base, progress, DenseForm(values, head, samples), tag=tag,
            threads=context.settings.threads,
            made=made_by(["add", base, *explicit(asked, _NOT_AGAIN)], base),
        )  # fmt: skip
    if json_output:
        console.emit_json(
            {
                "name": report.name,
                "digest": report.digest,
                "cached": report.cached,
                "values": report.manifest.values,
                "head": report.manifest.head,
                "own_bytes": report.own_bytes,
                "shared_bytes": report.shared_bytes,
                "seconds": report.seconds,
                "peak_memory_bytes": report.peak_memory_bytes,
            }
        )
        return
    console.facts(
        [
            ("name", report.name),
            (
                "packed",
                f"{console.size(report.own_bytes)} + {console.size(report.shared_bytes)} shared "
                f"by all sub-models of this base with head {report.manifest.head}",
            ),
            ("values", f"{report.manifest.values}, head {report.manifest.head}"),
            ("time", "from the store" if report.cached else console.duration(report.seconds)),
        ]
    )
