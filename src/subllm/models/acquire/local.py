"""A base that lies on this machine: it stays there, and is recorded with its digests."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from subllm.errors import SharedModelsError, UsageError
from subllm.models.acquire import checkpoint
from subllm.models.acquire.base_names import directory_titles, gguf_titles
from subllm.models.acquire.fetched import Fetched
from subllm.models.acquire.prompts import special_tokens
from subllm.models.acquire.share.local_place import local_place
from subllm.models.store.files import disk_errors, hash_file
from subllm.models.store.manifest import FileEntry
from subllm.progress import Progress

_KEY = "pull"


def fetch_local(path: Path, progress: Progress) -> Fetched:
    """A directory of safetensors, a directory with one GGUF, or a `.gguf` file.

    Raises UsageError when nothing is there, SharedModelsError for packed models, AcquireError
    and WeightsError when it is no checkpoint of a supported architecture.
    """
    path = path.expanduser().absolute()
    if local_place(path) is not None and not (path / checkpoint.CONFIG).exists():
        raise SharedModelsError(str(path))
    if path.is_dir():
        with disk_errors(path):
            names = sorted(item.name for item in path.iterdir() if item.is_file())
        ggufs = [name for name in names if name.endswith(".gguf")]
        if len(ggufs) == 1 and not any(name.endswith(".safetensors") for name in names):
            return _fetched([path / ggufs[0]], "gguf", path / ggufs[0], progress)
        files, licence_text = _checkpoint(path, names)
        return _fetched(files, "safetensors", path, progress, licence_text)
    if not path.is_file():
        raise UsageError(f"there is no file or directory {path}; check the path")
    if path.suffix != ".gguf":
        raise UsageError(f"{path} is no .gguf file; give its directory for safetensors")
    return _fetched([path], "gguf", path, progress)


def _fetched(
    files: list[Path],
    weights: Literal["safetensors", "gguf"],
    path: Path,
    progress: Progress,
    licence_text: str = "",
) -> Fetched:
    from subllm.models.weights.open import open_weights

    # Opened, since no digest tells whether these are whole.
    reader = open_weights(files)
    try:
        config = reader.config
        special = special_tokens(reader.tokenizer_files())
    finally:
        reader.close()
    return Fetched(
        files=_entries(files, progress),
        weights=weights,
        source=f"path:{path}",
        licence_text=licence_text,
        config=config,
        special=special,
        titles=gguf_titles(path) if weights == "gguf" else directory_titles(path, config),
    )


def _checkpoint(directory: Path, names: list[str]) -> tuple[list[Path], str]:
    """The files that make a checkpoint of safetensors, and its licence."""
    where = str(directory)
    with disk_errors(directory):
        sides = checkpoint.side_files(names, where)
        index = None
        if checkpoint.INDEX in names:
            index = (directory / checkpoint.INDEX).read_bytes()
            sides.append(checkpoint.INDEX)
        checkpoint.parse_config((directory / checkpoint.CONFIG).read_bytes(), where)
        weights = checkpoint.weight_files(names, index, where)
        licence = next((directory / name for name in checkpoint.LICENCES if name in names), None)
        text = ""
        if licence is not None and licence.stat().st_size <= checkpoint.LICENCE_BYTES:
            text = licence.read_text("utf-8", "replace")
    return [directory / name for name in (*sides, *weights)], text


def _entries(paths: list[Path], progress: Progress) -> tuple[FileEntry, ...]:
    with disk_errors(paths[0]):
        total = sum(path.stat().st_size for path in paths)
        progress.start(_KEY, f"digests of {paths[0].parent}", total, "bytes")
        try:
            return tuple(
                FileEntry(
                    name=path.name,
                    size=path.stat().st_size,
                    digest=hash_file(path, lambda count: progress.advance(_KEY, count)),
                    local_path=str(path),
                )
                for path in paths
            )
        finally:
            progress.finish(_KEY)
