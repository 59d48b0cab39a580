"""One entry to every kind of weights file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from subllm.errors import WeightsError
from subllm.models.weights.gguf import GgufReader
from subllm.models.weights.gguf_file import MAGIC
from subllm.models.weights.reader import WeightReader
from subllm.models.weights.safetensors import SafetensorsReader


def open_weights(source: Path | Sequence[Path]) -> WeightReader:
    """A `.gguf` file, a directory of safetensors (sharded or not), a `.safetensors` file
    with its config beside it, or the list of all files of a checkpoint, which may lie in
    different directories.

    Raises WeightsError when there are no weights, or several, or malformed ones.
    """
    paths = [source] if isinstance(source, Path) else list(source)
    if len(paths) == 1 and paths[0].is_dir():
        return _open_directory(paths[0])
    if len(paths) == 1 and _is_gguf(paths[0]):
        return GgufReader(paths[0])
    ggufs = [p for p in paths if p.suffix == ".gguf"]
    if len(ggufs) == 1:
        return GgufReader(ggufs[0])
    if len(ggufs) > 1:
        raise WeightsError(f"{len(ggufs)} GGUF files where one is expected; name the file")
    if len(paths) == 1 and paths[0].suffix == ".safetensors":
        return SafetensorsReader.beside(paths[0])
    return SafetensorsReader(paths)


def _is_gguf(path: Path) -> bool:
    """By content: a file in the store has a digest for a name."""
    try:
        with path.open("rb") as file:
            return file.read(4) == MAGIC
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}; check the path") from error


def _open_directory(directory: Path) -> WeightReader:
    files = sorted(p for p in directory.iterdir() if p.is_file())
    if any(p.suffix == ".safetensors" for p in files):
        return SafetensorsReader(files)
    ggufs = [p for p in files if p.suffix == ".gguf"]
    if len(ggufs) == 1:
        return GgufReader(ggufs[0])
    if ggufs:
        raise WeightsError(
            f"{directory} holds {len(ggufs)} GGUF files; name one of them, e.g. {ggufs[0].name}"
        )
    raise WeightsError(
        f"{directory} holds no safetensors or GGUF file; other formats are not supported"
    )
