"""A Hugging Face checkpoint in safetensors, sharded or not, as a `WeightReader`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from subllm.errors import WeightsError
from subllm.kernels.sparsity.int4 import Int4Rows
from subllm.models.arch.registry import causal_config, spec_from_config
from subllm.models.arch.spec import ArchSpec
from subllm.models.arch.tensors import tensor_shapes
from subllm.models.weights.checks import check_indices, check_shapes, unknown_tensor
from subllm.models.weights.floats import FLOAT_BYTES, to_float32
from subllm.models.weights.safetensors_file import SafetensorsFile

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
    "config.json",
)
# How multimodal checkpoints call the text model, by the age of transformers that saved it.
_TEXT_PREFIXES = (
    ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."),
    ("model.language_model.", "model."),
)


class SafetensorsReader:
    """Tensors of a checkpoint's shards, as float32 when read. See `WeightReader`."""

    def __init__(self, files: Sequence[Path]) -> None:
        """`files` are all files of the checkpoint; those that matter are picked by name.

        Raises WeightsError for missing or malformed files, and for tensors that are
        missing or do not have the shape that the config gives.
        """
        self._by_name = {path.name: path for path in files}
        self._config = causal_config(self._json("config.json"))
        self._spec = spec_from_config(self._config)
        self._shards: list[SafetensorsFile] = []
        self._tensors: dict[str, tuple[SafetensorsFile, str]] = {}
        try:
            self._open_shards()
        except BaseException:
            self._close_shards()
            raise

    @classmethod
    def beside(cls, weights: Path) -> SafetensorsReader:
        """One `.safetensors` file, with the config and tokenizer from its directory."""
        others = [p for p in sorted(weights.parent.glob("*")) if p.suffix in (".json", ".jinja")]
        others = [p for p in others if p.name != INDEX_NAME]
        return cls([*others, weights])

    def _open_shards(self) -> None:
        for path in self._shard_paths():
            shard = SafetensorsFile(path)
            self._shards.append(shard)
            for stored in shard.tensors:
                name = _text_name(stored)
                if name in self._tensors:
                    raise WeightsError(f"{path}: tensor {name!r} occurs in two shards")
                self._tensors[name] = (shard, stored)
        where = self._shards[0].path.parent
        found = {name: shard.tensors[s].shape for name, (shard, s) in self._tensors.items()}
        check_shapes(where, self._spec, found)
        wanted = tensor_shapes(self._spec)
        self._tensors = {name: self._tensors[name] for name in wanted}
        for name in self._tensors:
            if self.dtype(name) not in FLOAT_BYTES:
                raise WeightsError(
                    f"tensor {name!r} in {where} is of type {self.dtype(name)}; "
                    f"use a checkpoint in {', '.join(FLOAT_BYTES)}"
                )

    def _shard_paths(self) -> list[Path]:
        if INDEX_NAME in self._by_name:
            index = self._json(INDEX_NAME).get("weight_map")
            if not isinstance(index, dict) or not index:
                raise WeightsError(f"{self._by_name[INDEX_NAME]} has no weight_map; fetch it again")
            return [self._path(str(name)) for name in sorted({str(v) for v in index.values()})]
        if SINGLE_NAME in self._by_name:
            return [self._by_name[SINGLE_NAME]]
        shards = [p for p in self._by_name.values() if p.suffix == ".safetensors"]
        if len(shards) != 1:
            raise WeightsError(
                f"{len(shards)} safetensors files without {INDEX_NAME}; "
                "give the directory of a whole checkpoint"
            )
        return shards

    def _path(self, name: str) -> Path:
        try:
            return self._by_name[name]
        except KeyError:
            raise WeightsError(
                f"the checkpoint has no {name}; give a directory with all of its files"
            ) from None

    def _json(self, name: str) -> dict[str, Any]:
        path = self._path(name)
        try:
            value = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise WeightsError(f"{path} is not valid JSON; fetch it again") from error
        if not isinstance(value, dict):
            raise WeightsError(f"{path} is not a JSON object; fetch it again")
        return value

    @property
    def config(self) -> dict[str, Any]:
        return self._config

    @property
    def spec(self) -> ArchSpec:
        return self._spec

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(shard.path for shard in self._shards)

    def names(self) -> Sequence[str]:
        return tuple(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        shard, stored = self._stored(name)
        return shard.tensors[stored].shape

    def dtype(self, name: str) -> str:
        shard, stored = self._stored(name)
        return shard.tensors[stored].kind

    def read(self, name: str) -> npt.NDArray[np.float32]:
        shard, stored = self._stored(name)
        tensor = shard.tensors[stored]
        return to_float32(tensor.kind, shard.data(stored)).reshape(tensor.shape)

    def rows(self, name: str, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        shard, stored = self._stored(name)
        tensor = shard.tensors[stored]
        check_indices(name, tensor.shape, indices)
        raw = shard.data(stored).reshape(tensor.shape[0], -1)[indices]
        values = to_float32(tensor.kind, raw.reshape(-1))
        return values.reshape(len(indices), tensor.shape[1])

    def holds_int4(self, name: str) -> bool:
        return False  # safetensors have no such type

    def int4(self, name: str) -> Int4Rows | None:
        return None

    def tokenizer_files(self) -> dict[str, bytes]:
        if "tokenizer.json" not in self._by_name:
            raise WeightsError(
                "the checkpoint has no tokenizer.json; "
                "save it with a fast tokenizer, or use another source"
            )
        present = [name for name in TOKENIZER_FILES if name in self._by_name]
        return {name: self._by_name[name].read_bytes() for name in present}

    def release(self) -> None:
        for shard in self._shards:
            shard.file.release()

    def close(self) -> None:
        self._close_shards()
        self._tensors = {}

    def _close_shards(self) -> None:
        for shard in self._shards:
            shard.file.close()

    def _stored(self, name: str) -> tuple[SafetensorsFile, str]:
        try:
            return self._tensors[name]
        except KeyError:
            where = self._shards[0].path.parent
            raise unknown_tensor(where, name, self._tensors) from None


def _text_name(name: str) -> str:
    for prefix, text in _TEXT_PREFIXES:
        if name.startswith(prefix):
            return text + name.removeprefix(prefix)
    return name
