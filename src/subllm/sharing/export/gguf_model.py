"""A model as one GGUF file, as llama.cpp loads it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from subllm.models.arch.spec import ArchSpec, RopeScaling
from subllm.models.weights.gguf_names import gguf_name, is_permuted, is_shifted
from subllm.sharing.export.ggml import BLOCKS, Encoder, kind_for
from subllm.sharing.export.gguf_metadata import add_architecture, architecture_of
from subllm.sharing.export.gguf_vocabulary import add_vocabulary
from subllm.sharing.export.job import ExportJob, OnBytes, Piece
from subllm.sharing.export.safetensors_writer import Array, write_tensor
from subllm.sharing.export.weights import Rows, StoredWeights, slices

TYPES = ("auto", "q8_0", "f16")

_FILE_TYPES = {
    "F16": gguf.LlamaFileType.MOSTLY_F16,
    "BF16": gguf.LlamaFileType.MOSTLY_BF16,
    "Q4_0": gguf.LlamaFileType.MOSTLY_Q4_0,
    "Q4_1": gguf.LlamaFileType.MOSTLY_Q4_1,
    "Q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    "Q4_K": gguf.LlamaFileType.MOSTLY_Q4_K_M,
}
_ROPE_FACTORS = "rope_freqs.weight"


class _Tensor:
    """A tensor of the file: its name there, type, shape, and bytes in pieces."""

    def __init__(
        self, name: str, kind: str, shape: tuple[int, ...], pieces: Callable[[], Iterator[Array]]
    ) -> None:
        self.name, self.kind, self.shape, self.pieces = name, kind, shape, pieces
        per_block, block_bytes = BLOCKS[kind]
        self.nbytes = math.prod(shape) // per_block * block_bytes


def pieces(job: ExportJob, file_name: str) -> list[Piece]:
    """The one file of format gguf. Raises UsageError for what llama.cpp has no name for."""
    architecture = architecture_of(job.spec)
    tensors = list(_tensors(job.weights, architecture, job.type))
    for tensor in tensors:
        job.count(tensor.kind)
    if job.spec.family in ("mistral", "starcoder2") and job.spec.sliding_window is not None:
        job.notes.append(
            f"llama.cpp attends to the whole context where the model attends to the last "
            f"{job.spec.sliding_window:,} tokens: beyond them answers differ"
        )
    size = sum(tensor.nbytes for tensor in tensors) + 2 * len(job.bundle)  # vocabulary, roughly

    def write(path: Path, on_bytes: OnBytes) -> None:
        _write(_writer(job, architecture, tensors), path, tensors, on_bytes)

    return [Piece(file_name, size, write)]


def _tensors(weights: StoredWeights, architecture: str, wanted: str) -> Iterator[_Tensor]:
    for name in weights.shapes:
        yield (_matrix if weights.is_matrix(name) else _vector)(weights, architecture, name, wanted)
    scaling = weights.spec.rope_scaling
    if scaling is not None and scaling.kind == "llama3":
        factors = rope_factors(weights.spec, scaling)
        yield _Tensor(_ROPE_FACTORS, "F32", factors.shape, lambda: iter([factors]))


def _matrix(weights: StoredWeights, architecture: str, name: str, wanted: str) -> _Tensor:
    tensor = weights.tensor(name)
    kind = kind_for(tensor, wanted)
    order = _order(weights.spec, architecture, name)

    def read() -> Iterator[Array]:
        encoder = Encoder(tensor, kind)
        for rows in slices(tensor.shape, order):
            yield encoder.rows(rows)

    return _Tensor(gguf_name(architecture, name), kind, tensor.shape, read)


def _vector(weights: StoredWeights, architecture: str, name: str, wanted: str) -> _Tensor:
    order = _order(weights.spec, architecture, name)

    def read() -> Iterator[Array]:
        vector = weights.vector(name)
        if is_shifted(architecture, name):
            vector += np.float32(1)
        yield vector if order is None else vector[order]

    return _Tensor(gguf_name(architecture, name), "F32", weights.shapes[name], read)


def _order(spec: ArchSpec, architecture: str, name: str) -> Rows | None:
    """For each row of the file the checkpoint's row: of q and k of llama the two rotary halves
    of a head become pairs."""
    if not is_permuted(architecture, name):
        return None
    heads = spec.num_heads if ".q_proj." in name else spec.num_kv_heads
    rows = np.arange(heads * spec.head_dim, dtype=np.int64)
    return rows.reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1)


def rope_factors(spec: ArchSpec, scaling: RopeScaling) -> npt.NDArray[np.float32]:
    """float32 [head_dim / 2]: what each rotary frequency of Llama 3's scaling is divided by."""
    exponents = np.arange(0, spec.head_dim, 2, dtype=np.float64) / spec.head_dim
    turns = scaling.original_context * spec.rope_theta**-exponents / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    factors: npt.NDArray[np.float64] = 1 / ((1 - smooth) / scaling.factor + smooth)
    return factors.astype(np.float32)


def _writer(job: ExportJob, architecture: str, tensors: list[_Tensor]) -> gguf.GGUFWriter:
    manifest = job.manifest
    writer = gguf.GGUFWriter(None, architecture)
    writer.add_name(manifest.name)
    writer.add_license(manifest.base.licence.id)
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, manifest.base.name)
    writer.add_description(
        f"{manifest.base.name} for {manifest.language}: {manifest.method.name}, "
        f"{manifest.density:.1%} of the block weights kept"
    )
    sizes: dict[str, int] = {}
    for tensor in tensors:
        if len(tensor.shape) == 2:
            sizes[tensor.kind] = sizes.get(tensor.kind, 0) + tensor.nbytes
    writer.add_file_type(_FILE_TYPES[max(sizes, key=lambda kind: sizes[kind])])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add_architecture(writer, job.spec)
    add_vocabulary(
        writer, job.tokenizer, job.bundle, job.spec.vocab_size, job.end_ids, manifest.prompt.fim
    )
    for tensor in tensors:
        writer.add_tensor_info(
            tensor.name,
            tensor.shape,
            np.dtype(np.float32),  # of no meaning where the type is given
            tensor.nbytes,
            gguf.GGMLQuantizationType[tensor.kind],
        )
    return writer


def _write(writer: Any, path: Path, tensors: list[_Tensor], on_bytes: OnBytes) -> None:
    """The package's own way wants a whole tensor in memory; the form of the file is its."""
    writer.write_header_to_file(path)
    try:
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        (file,) = writer.fout
        writer.write_padding(file, file.tell())
        on_bytes(file.tell())
        for tensor in tensors:
            write_tensor(file, tensor, on_bytes)
            writer.write_padding(file, tensor.nbytes)
    finally:
        writer.close()
