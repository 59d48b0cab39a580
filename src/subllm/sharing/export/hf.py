"""A checkpoint as transformers loads it: safetensors with zeros kept, config, tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from subllm.kernels.sparsity.packing import unpack_rows
from subllm.sharing.export.config import config_of
from subllm.sharing.export.job import ExportJob, OnBytes, Piece, text_piece
from subllm.sharing.export.safetensors_writer import Array, Stored, as_type, file_size, write
from subllm.sharing.export.tokenizer_files import hf_tokenizer_files
from subllm.sharing.export.weights import StoredWeights, slices

TYPES = {"bf16": ("BF16", "bfloat16"), "f16": ("F16", "float16"), "f32": ("F32", "float32")}


def pieces(job: ExportJob) -> list[Piece]:
    """The files of format hf; all tensors in job.type."""
    kind, _ = TYPES[job.type]
    weights = job.weights
    tensors = [dense(weights, name, kind) for name in weights.shapes]
    job.count(kind, len(tensors))
    return [*checkpoint(job, {}), safetensors_piece(tensors)]


def checkpoint(job: ExportJob, config: dict[str, Any]) -> list[Piece]:
    """Everything beside the weights; `config` is laid over the architecture's."""
    _, name = TYPES[job.type]
    bos = {"bos_token_id": job.tokenizer.bos_id}  # null too, else the class has its own
    ends = list(job.end_ids)
    whole = {
        **config_of(job.spec),
        **bos,
        "eos_token_id": ends[0] if ends else None,
        "pad_token_id": None,
        "dtype": name,
        "torch_dtype": name,  # for transformers 4
        **config,
    }
    generation: dict[str, Any] = {**bos, "do_sample": False}
    if ends:
        generation |= {"eos_token_id": ends, "pad_token_id": ends[0]}
    return [
        text_piece("config.json", _dump(whole)),
        text_piece("generation_config.json", _dump(generation)),
        *(text_piece(n, d) for n, d in hf_tokenizer_files(job.tokenizer, job.bundle).items()),
    ]


def dense(weights: StoredWeights, name: str, kind: str) -> Stored:
    """One tensor with its zeros; vectors too, as checkpoints have one type for all."""

    def read() -> Iterator[Array]:
        if not weights.is_matrix(name):
            yield as_type(weights.vector(name), kind)
            return
        tensor = weights.tensor(name)
        for rows in slices(tensor.shape):
            yield as_type(unpack_rows(tensor, rows), kind)

    return Stored(name, kind, weights.shapes[name], read)


def safetensors_piece(tensors: list[Stored]) -> Piece:
    def run(path: Path, on_bytes: OnBytes) -> None:
        with path.open("wb") as file:
            write(file, tensors, on_bytes)

    return Piece("model.safetensors", file_size(tensors), run)


def _dump(value: Any) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"
