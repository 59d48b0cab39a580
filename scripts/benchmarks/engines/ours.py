"""Worker of subllm's own engine: ours.py MODEL BACKEND THREADS PROMPT_TOKENS TOKENS."""

from __future__ import annotations

import os
import sys

import numpy as np
from steps import step_seconds
from worker import own_output, serve

from subllm.engine.bandwidth import weight_bytes_per_token
from subllm.engine.computing import Computing
from subllm.engine.limits import EngineLimits
from subllm.engine.loader import load_engine
from subllm.engine.measure import Probe, kv_tokens, longest_sequence
from subllm.errors import SubllmError
from subllm.kernels.native import core
from subllm.models.arch.spec import ArchSpec
from subllm.models.store.model_files import ModelFiles, open_model
from subllm.models.store.store import Store
from subllm.settings import load_settings


def bytes_per_token(files: ModelFiles, backend: str, screened: bool) -> int:
    """The torch backend unpacks every matrix to bf16."""
    if backend == "native":
        return weight_bytes_per_token(files, screened=screened)
    spec = ArchSpec.from_dict(files.manifest.arch)
    shapes = {entry.name: entry.shape for entry in files.manifest.tensors}
    if not spec.tied_head:
        del shapes[spec.embedding_name]
    return sum(2 * int(np.prod(shape)) for shape in shapes.values())


def main() -> None:
    name, backend = sys.argv[1:3]
    threads, prompt_tokens, tokens = map(int, sys.argv[3:])
    output = own_output()
    settings = load_settings()
    store = Store(settings.home)
    engine = load_engine(
        store,
        name,
        computing=Computing(
            backend=backend,  # type: ignore[arg-type]
            device="cpu",
            threads=threads,
            screened_head=settings.screened_head,
        ),
        limits=EngineLimits(kv_tokens=kv_tokens(prompt_tokens, tokens)),
        context_length=longest_sequence(prompt_tokens, tokens),
    )
    with open_model(store, name) as files:
        manifest = files.manifest
        read = bytes_per_token(files, backend, settings.screened_head)
    vocab_size = ArchSpec.from_dict(manifest.arch).vocab_size
    probe = Probe(engine, vocab_size, prompt_tokens=prompt_tokens, tokens=tokens)
    probe.warm_up()
    facts = {
        "model": name,
        "digest": store.resolve(name),
        "pattern": manifest.pattern,
        "values": manifest.values,
        "head": manifest.head,
        "screened_head": settings.screened_head,
        "backend": backend,
        "kernels": os.environ.get("SUBLLM_ISA") or core().isas()[0],
        "bytes_per_token": read,
    }
    measures = {
        "decode": probe.decode,
        "prefill": probe.prefill,
        "batch_decode": probe.batch_decode,
        "first_token": probe.first_token,
        "steps": lambda: step_seconds(engine._backend),
    }
    serve(output, sys.stdin, measures, facts)
    engine.close()


if __name__ == "__main__":
    try:
        main()
    except SubllmError as error:
        sys.exit(str(error))
