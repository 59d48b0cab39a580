"""`subllm push`: give models away."""

from __future__ import annotations

from typing import Annotated

import typer

from subllm.cli import console
from subllm.cli.context import complete_sub_model, open_context

EXAMPLES = """
subllm push qwen2.5-coder:0.5b-python hf:team/coder
subllm push qwen2.5-coder:0.5b-java hf:team/coder   a second one there
subllm push qwen2.5-coder:0.5b-python /mnt/models   a directory
subllm push qwen2.5-coder:0.5b-python coder.subllm  one file
subllm pull hf:team/coder                           what the others do
"""


def command(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME", help="Models of the store.", autocompletion=complete_sub_model
        ),
    ],
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="Where to: hf:org/name, a directory, or a file that ends in .subllm or .tar.",
        ),
    ],
    public: Annotated[
        bool,
        typer.Option(
            "--public", help="Let everybody see a repository that is made; else it is private."
        ),
    ] = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON document.")
    ] = False,
) -> None:
    """Give packed models away, by the hub, a directory or a file.

    What is needed to serve them goes along: weights, tokenizer, configuration, the licence of
    the base, and a README.md that says how they were made and what they kept. Blobs that are
    there already, such as the part that models of one base share, are not sent again; a push that
    was cut off goes on. Models that are there stay, but for one of the same name; a file is
    written anew. Paths and the name of this machine are left out.

    'subllm pull TARGET' fetches them. The hub wants a token that may write, in HF_TOKEN or from
    'hf auth login'; HF_ENDPOINT and proxy variables are honoured.
    """
    from subllm.cli.progress_bars import RichProgress
    from subllm.sharing.exchange.open import push

    context = open_context()
    with RichProgress() as progress:
        sent = push(
            names,
            target,
            context.store,
            progress,
            public=public,
            offline=context.settings.offline,
            probe_seconds=context.settings.hub_probe_seconds,
        )
    if json_output:
        console.emit_json(
            {
                "models": names,
                "place": sent.place,
                "pull": sent.pull,
                "sent_bytes": sent.sent,
                "present_bytes": sent.present,
            }
        )
        return
    there = f", {console.size(sent.present)} were there already" if sent.present else ""
    console.facts(
        [
            ("pushed", ", ".join(names)),
            ("to", sent.place),
            ("sent", f"{console.size(sent.sent)}{there}"),
        ]
    )
    console.note(f"fetched by: subllm pull {sent.pull}")
