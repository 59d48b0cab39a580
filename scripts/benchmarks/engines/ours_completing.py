"""Worker of subllm's own engine that writes real completions:

    ours_completing.py MODEL THREADS LONGEST TOGETHER [DRAFT]

LONGEST: tokens of a request, prompt included; TOGETHER: requests at once, at most.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from completing import completions
from worker import own_output, serve

from subllm.engine.bandwidth import weight_bytes_per_token
from subllm.engine.computing import Computing
from subllm.engine.limits import EngineLimits
from subllm.engine.loader import load_engine
from subllm.engine.request import Request
from subllm.errors import SubllmError
from subllm.kernels.native import core
from subllm.models.store.model_files import open_model
from subllm.models.store.store import Store
from subllm.settings import load_settings

PREFIXES = 8
"""More than an engine keeps."""


def main() -> None:
    name = sys.argv[1]
    threads, longest, together = map(int, sys.argv[2:5])
    draft = sys.argv[5] if len(sys.argv) > 5 else None
    output = own_output()
    chance = random.Random(0)
    store = Store(load_settings().home)
    engine = load_engine(
        store,
        name,
        computing=Computing(backend="native", device="cpu", threads=threads),
        limits=EngineLimits(max_batch=together, kv_tokens=together * (longest + 64)),
        context_length=longest,
        draft=draft,
    )
    with open_model(store, name) as files:
        manifest, read = files.manifest, weight_bytes_per_token(files)
    draft_read = None
    if draft:
        with open_model(store, draft) as files:
            draft_read = weight_bytes_per_token(files)

    def complete(
        asks: list[dict[str, Any]], together: int = 1, drafts: str = ""
    ) -> Iterator[dict[str, Any]]:
        """drafts: the kind of speculation, "" for plain decoding."""
        if not drafts:
            yield from completions(engine, asks, together)
            return

        def prepare(request: Request) -> Request:
            return replace(request, speculation=drafts)  # type: ignore[arg-type]

        before = counts()
        yield from completions(engine, asks, together, prepare)
        yield {"drafts": {k: v - before.get(k, 0) for k, v in counts().items()}}

    def forget() -> None:
        """Has the engine remember other prompts than those that were asked."""
        for _ in range(PREFIXES):
            prompt = chance.choices(range(1000), k=8)
            ask = {"id": "forget", "prompt": prompt, "max_tokens": 1}
            list(completions(engine, [ask], 1))

    def counts() -> dict[str, int]:
        return {
            f"{source} {what}": getattr(one, what)
            for source, one in engine.speculation.sources.items()
            for what in ("rounds", "drafted", "accepted")
        }

    facts = {
        "model": name,
        "digest": store.resolve(name),
        "pattern": manifest.pattern,
        "values": manifest.values,
        "head": manifest.head,
        "draft": draft,
        "draft_digest": store.resolve(draft) if draft else None,
        "draft_bytes_per_token": draft_read,
        "kernels": os.environ.get("SUBLLM_ISA") or core().isas()[0],
        "bytes_per_token": read,
    }
    serve(output, sys.stdin, {"complete": complete, "forget": forget}, facts)
    engine.close()


if __name__ == "__main__":
    try:
        main()
    except SubllmError as error:
        sys.exit(str(error))
