"""Writes a model of the store into a directory of its own, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from subllm import __version__
from subllm.errors import UsageError, excerpt
from subllm.files import sync_directory, sync_file
from subllm.models.store.files import check_space, disk_errors
from subllm.models.store.manifest import sha256_of
from subllm.models.store.model_files import open_model
from subllm.models.store.store import Store
from subllm.progress import NullProgress, Progress, bar
from subllm.sharing.export.card import card, licence_text
from subllm.sharing.export.formats import Format, format_of
from subllm.sharing.export.job import ExportJob, Piece, text_piece
from subllm.sharing.export.weights import StoredWeights

MARK = "subllm.json"
"""The file by which an export is known as one, so that it may be replaced."""


@dataclass(frozen=True)
class ExportReport:
    """files: bytes by name. tensors: how many of each type. notes: what a reader should know."""

    name: str
    format: str
    type: str
    directory: Path
    files: dict[str, int]
    tensors: dict[str, int]
    notes: tuple[str, ...]
    seconds: float

    @property
    def nbytes(self) -> int:
        return sum(self.files.values())


def export_model(
    store: Store,
    name: str,
    directory: Path,
    format_name: str,
    kind: str | None = None,
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Writes the model `name` into `directory`, which must not be there, or be empty; with
    `force` it may be an earlier export, which it replaces. `kind`: of weights, see `formats`.

    The files are written aside and renamed: whatever ends this early leaves `directory` as it
    was. Memory holds a few megabytes of rows at a time, and the codes' scales of one matrix.

    Raises UsageError for a directory that cannot be used, PatternError for a pattern that the
    format cannot hold, DiskFullError before anything is written, StoreError, and what
    `open_model` raises.
    """
    began = time.monotonic()
    progress = progress or NullProgress()
    chosen, kind = format_of(format_name, kind)
    directory = directory.expanduser().absolute()
    _check_directory(directory, force)

    def on_bytes(count: int) -> None:
        progress.advance("export", count)

    with open_model(store, name) as files:
        manifest = files.manifest
        job = ExportJob(
            manifest,
            StoredWeights(files),
            files.tokenizer(),
            store.blobs.read_bytes(manifest.blobs.tokenizer),
            kind,
        )
        pieces = _all_pieces(job, chosen, store.resolve(name))
        total = sum(piece.size for piece in pieces)
        check_space(directory.parent, total)
        key = f"export {sha256_of(str(directory).encode())[:23]}"
        with (
            store.lock(key, on_wait=progress.note),
            disk_errors(directory),
            _aside(directory) as partial,
        ):
            with bar(progress, "export", f"writing {chosen.name}", total, "bytes"):
                for piece in pieces:
                    piece.write(partial / piece.name, on_bytes)
                    sync_file(partial / piece.name)
            sizes = {piece.name: (partial / piece.name).stat().st_size for piece in pieces}
            _publish(partial, directory, force)
    return ExportReport(
        manifest.name,
        chosen.name,
        kind,
        directory,
        sizes,
        dict(job.tensors),
        tuple(job.notes),
        time.monotonic() - began,
    )


def _all_pieces(job: ExportJob, chosen: Format, digest: str) -> list[Piece]:
    """Weights and what belongs to them, the card, the licence, the mark."""
    manifest = job.manifest
    file_name = f"{manifest.name.replace(':', '-')}.gguf"
    pieces = chosen.pieces(job, file_name)
    usage = chosen.usage.replace("{file}", file_name)
    pieces.append(text_piece("README.md", card(manifest, chosen.title, usage, job.notes)))
    if (licence := licence_text(manifest)) is not None:
        pieces.append(text_piece("LICENSE", licence))
    names = [piece.name for piece in pieces]
    mark = {
        "files": [*names, MARK],
        "subllm": __version__,
        "model": manifest.name,
        "manifest": digest,
        "format": chosen.name,
        "type": job.type,
    }
    pieces.append(text_piece(MARK, json.dumps(mark, indent=2).encode() + b"\n"))
    return pieces


def _check_directory(directory: Path, force: bool) -> None:
    parent = directory.parent
    if not parent.is_dir():
        raise UsageError(f"there is no directory {parent}; make it first")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError(f"{parent} cannot be written to; name a directory elsewhere")
    if not directory.exists() and not directory.is_symlink():
        return
    if directory.is_symlink() or not directory.is_dir():
        raise UsageError(f"{directory} is no directory; name another one")
    with disk_errors(directory):
        found = {path.name for path in directory.iterdir()}
    if not found:
        return
    if not force:
        raise UsageError(
            f"{directory} is there already; name another directory, or say --force to replace "
            "an earlier export"
        )
    others = sorted(found - _written(directory))
    if others:
        raise UsageError(
            f"{directory} holds {excerpt(others[0])}, which no export wrote, so --force does not "
            "replace it; name another directory"
        )


def _written(directory: Path) -> set[str]:
    """Names that an earlier export wrote into it."""
    try:
        return set(json.loads((directory / MARK).read_bytes())["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return set()


@contextmanager
def _aside(directory: Path) -> Iterator[Path]:
    """A new directory beside; what a killed run left of it goes, as this one does."""
    partial = directory.with_name(f".{directory.name}.partial")
    _remove(partial)
    partial.mkdir()
    try:
        yield partial
    finally:
        _remove(partial)


def _publish(partial: Path, directory: Path, force: bool) -> None:
    _check_directory(directory, force)  # it may have come meanwhile
    sync_directory(partial)
    old = directory.with_name(f".{directory.name}.replaced")
    _remove(old)
    if directory.exists():
        directory.rename(old)
    try:
        partial.rename(directory)
    except BaseException:
        if old.exists():
            old.rename(directory)
        raise
    sync_directory(directory.parent)
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
