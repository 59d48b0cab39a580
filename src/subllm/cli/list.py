"""`subllm list`: what the store holds, or what can be pulled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from subllm.cli import console
from subllm.cli.context import Context, open_context

if TYPE_CHECKING:
    from collections.abc import Iterable

    from subllm.models.store.manifest import Manifest
    from subllm.models.store.sizes import Sizes

EXAMPLES = """
subllm list
subllm list --catalog    what can be pulled by name
subllm list --json
"""


def command(
    catalog: Annotated[
        bool, typer.Option("--catalog", help="List the bases that can be pulled instead.")
    ] = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the list as one JSON document.")
    ] = False,
) -> None:
    """List bases and models in the store.

    OWN is what only this name needs on disk, SHARED what other names need too. LOSS compares
    perplexity on held-out code of the language before and after pruning. RECOVERED says how many
    tokens a sub-model learned from and how many of its first choices are then the dense base's
    (held-out text). In the catalog PULL
    is the size of what the sources deliver, in the order in which they are tried, and CONTEXT
    what is served of the longest prompt and completion that the model can take.
    """
    context = open_context()
    if catalog:
        _list_catalog(context, json_output)
    else:
        _list_store(context, json_output)


def _list_store(context: Context, json_output: bool) -> None:
    from subllm.models.store.sizes import all_sizes

    store = context.store
    sizes = all_sizes(store)
    found = {name: _manifest(context, digest) for name, digest in store.names().items()}
    if json_output:
        console.emit_json([_document(name, found[name], sizes[name]) for name in found])
        return
    if not found:
        console.note("The store is empty. Start with: subllm pull qwen2.5-coder:0.5b")
        return
    rows = [_row(name, found[name], sizes[name]) for name in found]
    recovered = [_recovered(found[name]) for name in found]
    columns: list[Any] = [
        "NAME", "PATTERN", "VALUES", ("OWN", "right"), ("SHARED", "right"), ("LOSS", "right")
    ]  # fmt: skip
    if any(recovered):
        columns.append(("RECOVERED", "right"))
        rows = [[*row, cell] for row, cell in zip(rows, recovered, strict=True)]
    console.table(columns, rows)


def _manifest(context: Context, digest: str) -> Manifest | None:
    """None when it is damaged: one bad entry must not hide the others."""
    from subllm.errors import StoreError

    try:
        return context.store.manifest(digest)
    except StoreError:
        return None


def _row(name: str, manifest: Manifest | None, sizes: Sizes) -> list[str]:
    shared = console.size(sizes.shared) if sizes.shared else ""
    own = console.size(sizes.own + sizes.outside)
    if manifest is None:
        return [name, "damaged", "", "", "", "verify it"]
    if manifest.kind == "base":
        return [name, "base", manifest.weights, own, shared, "missing" if sizes.missing else ""]
    loss = ""
    measured = manifest.perplexity.get(manifest.language)
    if sizes.missing:
        loss = "missing"
    elif measured is not None:
        loss = f"{measured.after / measured.before - 1:+.1%}"
    return [name, manifest.pattern, manifest.values, own, shared, loss]


def _recovered(manifest: Manifest | None) -> str:
    """`2.0M 93.1%`, where it is."""
    if manifest is None or manifest.kind == "base" or manifest.recovery is None:
        return ""
    record = manifest.recovery
    tokens = f"{record.tokens / 1e6:.1f}M"
    if record.tokens < 1_000_000:
        tokens = f"{record.tokens / 1000:.0f}k"
    return f"{tokens} {record.after.agreement:.1%}"


def _document(name: str, manifest: Manifest | None, sizes: Sizes) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": name,
        "kind": manifest.kind if manifest else None,
        "damaged": manifest is None or sizes.missing > 0,
        "own_bytes": sizes.own,
        "shared_bytes": sizes.shared,
        "shared_with": list(sizes.shared_with),
        "outside_bytes": sizes.outside,
    }
    if manifest is not None and manifest.kind == "base":
        document |= {"source": manifest.source, "licence": manifest.licence.id}
    elif manifest is not None:
        document |= {
            "base": manifest.base.name,
            "language": manifest.language,
            "method": manifest.method.name,
            "pattern": manifest.pattern,
            "values": manifest.values,
            "head": manifest.head,
            "density": manifest.density,
            "recovery": manifest.recovery.model_dump() if manifest.recovery else None,
            "perplexity": {
                domain: value.model_dump() for domain, value in manifest.perplexity.items()
            },
        }
    return document


def _list_catalog(context: Context, json_output: bool) -> None:
    from subllm.served_context import served_context

    bases = context.catalog.bases
    stored = context.store.names()
    limit = context.settings.context_length
    if json_output:
        console.emit_json(
            [
                {
                    "name": name,
                    "parameters": base.params,
                    "download_bytes": next(iter(base.downloads.values())),
                    "downloads": base.downloads,
                    "licence": base.licence.id,
                    "gated": base.gated,
                    "context_length": served_context(base.prompt.context_length, limit),
                    "max_context_length": base.prompt.context_length,
                    "fill_in_the_middle": base.prompt.fim is not None,
                    "sources": [source.type for source in base.sources],
                    "stored": name in stored,
                }
                for name, base in bases.items()
            ]
        )
        return
    console.table(
        ["NAME", ("PULL", "right"), ("CONTEXT", "right"), "FIM", "LICENCE", ""],
        [
            [
                name,
                _sizes(base.downloads.values()),
                _context(base.prompt.context_length, limit),
                "yes" if base.prompt.fim else "no",
                base.licence.id.removeprefix("LicenseRef-") + (" (gated)" if base.gated else ""),
                "stored" if name in stored else "",
            ]
            for name, base in bases.items()
        ],
    )


def _sizes(downloads: Iterable[int | None]) -> str:
    """One below the other; sources of the same size deliver the same file."""
    known = dict.fromkeys(size for size in downloads if size is not None)
    return "\nor ".join(map(console.size, known)) or "not known"


def _context(longest: int, limit: int | None) -> str:
    """`8k of 32k`, or only one of them where all is served."""
    from subllm.served_context import served_context

    served = served_context(longest, limit)
    return _count(served) + (f" of {_count(longest)}" if served < longest else "")


def _count(tokens: int) -> str:
    return f"{tokens:,}" if tokens % 1024 else f"{tokens // 1024}k"
