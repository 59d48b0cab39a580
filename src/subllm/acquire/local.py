"""A base that lies on this machine: it stays there, and is recorded with its digests."""

from __future__ import annotations

from pathlib import Path

from subllm.acquire import checkpoint
from subllm.acquire.fetched import Fetched
from subllm.acquire.prompts import special_tokens
from subllm.errors import UsageError
from subllm.progress import Progress
from subllm.store.files import disk_errors, hash_file
from subllm.store.manifest import FileEntry

_KEY = "pull"
_LICENCE_BYTES = 200_000


def fetch_local(path: Path, progress: Progress) -> Fetched:
    """A directory of safetensors, a directory with one GGUF, or a `.gguf` file.

    Raises UsageError when nothing is there, AcquireError and WeightsError when it is no
    checkpoint of a supported architecture.
    """
    path = path.expanduser().absolute()
    if path.is_dir():
        names = sorted(item.name for item in path.iterdir() if item.is_file())
        ggufs = [name for name in names if name.endswith(".gguf")]
        if len(ggufs) == 1 and not any(name.endswith(".safetensors") for name in names):
            return _gguf(path / ggufs[0], progress)
        return _safetensors(path, names, progress)
    if not path.is_file():
        raise UsageError(f"there is no file or directory {path}; check the path")
    if path.suffix != ".gguf":
        raise UsageError(f"{path} is no .gguf file; give its directory for safetensors")
    return _gguf(path, progress)


def _gguf(path: Path, progress: Progress) -> Fetched:
    from subllm.weights.open import open_weights

    reader = open_weights(path)
    try:
        config = reader.config
        special = special_tokens(reader.tokenizer_files())
    finally:
        reader.close()
    return Fetched(
        files=_entries([path], progress),
        weights="gguf",
        source=f"path:{path}",
        config=config,
        special=special,
    )


def _safetensors(directory: Path, names: list[str], progress: Progress) -> Fetched:
    where = str(directory)
    with disk_errors(directory):
        sides = checkpoint.side_files(names, where)
        index = None
        if checkpoint.INDEX in names:
            index = (directory / checkpoint.INDEX).read_bytes()
            sides.append(checkpoint.INDEX)
        config = checkpoint.parse_config((directory / checkpoint.CONFIG).read_bytes(), where)
        weights = checkpoint.weight_files(names, index, where)
        tokenizer = {
            name: (directory / name).read_bytes() for name in sides if name == "tokenizer.json"
        }
        licence = next((directory / name for name in checkpoint.LICENCES if name in names), None)
        text = ""
        if licence is not None and licence.stat().st_size <= _LICENCE_BYTES:
            text = licence.read_text("utf-8", "replace")
    return Fetched(
        files=_entries([directory / name for name in (*sides, *weights)], progress),
        weights="safetensors",
        source=f"path:{directory}",
        licence_text=text,
        config=config,
        special=special_tokens(tokenizer),
    )


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
