"""`subllm verify`: check stored bytes against their digests."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from subllm.cli import console
from subllm.cli.context import complete_name, open_context

EXAMPLES = """
subllm verify                             everything
subllm verify qwen2.5-coder:0.5b-python
"""


def command(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME", help="What to check. Default: everything.", autocompletion=complete_name
        ),
    ] = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the findings as one JSON document.")
    ] = False,
) -> None:
    """Read everything again and compare it with its digest.

    Says for each thing that is wrong what to do about it. Exits with 4 when there is any.
    """
    from subllm.cli.progress_bars import RichProgress
    from subllm.errors import CorruptError
    from subllm.models.store.verify import verify

    store = open_context().store
    with RichProgress() as progress:
        results = verify(store, names or None, progress)
    if json_output:
        console.emit_json([_document(result) for result in results])
    else:
        for result in results:
            state = "ok" if result.ok else "DAMAGED"
            console.result(f"{result.name}  {state}")
            for problem in result.problems:
                console.result(f"  {problem.what}\n  -> {problem.fix}")
    bad = [result.name for result in results if not result.ok]
    if bad:
        raise CorruptError(f"{len(bad)} of {len(results)} are damaged: {', '.join(bad)}")
    if not json_output and not results:
        console.note("The store is empty.")


def _document(result: Any) -> dict[str, Any]:
    return {
        "name": result.name,
        "digest": result.digest,
        "ok": result.ok,
        "checked_bytes": result.checked,
        "problems": [{"what": p.what, "fix": p.fix} for p in result.problems],
    }
