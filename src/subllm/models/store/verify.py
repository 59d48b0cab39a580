"""Checking that what the store says is there is there, byte for byte."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from subllm.errors import StoreError, SubllmError
from subllm.models.store.files import disk_errors, hash_file
from subllm.models.store.manifest import (
    BaseManifest,
    FileEntry,
    Manifest,
    ModelManifest,
    blob_digests,
)
from subllm.models.store.model_files import ModelFiles
from subllm.models.store.names import kind_of
from subllm.models.store.store import Store
from subllm.progress import NullProgress, Progress

_TASK = "verify"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and what to do about it."""

    what: str
    fix: str


@dataclass(frozen=True)
class VerifyResult:
    name: str
    digest: str
    problems: tuple[Problem, ...]
    checked: int  # bytes hashed for this name; shared ones are hashed once for all

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(
    store: Store, names: Iterable[str] | None = None, progress: Progress | None = None
) -> list[VerifyResult]:
    """Check the manifests, blobs, packed tables and outside files of `names` (None: all).

    Never raises for damage, which is what the results tell; UnknownNameError for a
    name that is not there. Progress counts bytes.
    """
    wanted = list(store.names() if names is None else dict.fromkeys(names))
    digests = {name: store.resolve(name) for name in wanted}
    watcher = progress or NullProgress()
    run = _Run(store, watcher)
    watcher.start(_TASK, "verifying", run.expected(digests.values()), "bytes")
    try:
        return [run.check(name, digest) for name, digest in digests.items()]
    finally:
        watcher.finish(_TASK)


class _Run:
    """One verification: remembers which files were hashed already."""

    def __init__(self, store: Store, progress: Progress) -> None:
        self._store = store
        self._progress = progress
        self._found: dict[Path, str] = {}
        self._checked = 0

    def expected(self, digests: Iterable[str]) -> int:
        paths: set[Path] = set()
        for digest in digests:
            try:
                manifest = self._store.manifest(digest)
            except StoreError:
                continue
            paths.update(self._store.blobs.directory / blob for blob in blob_digests(manifest))
            if isinstance(manifest, BaseManifest):
                paths.update(path for file in manifest.files if (path := _outside(file)))
        return sum(path.stat().st_size for path in paths if path.is_file())

    def check(self, name: str, digest: str) -> VerifyResult:
        self._checked = 0
        try:
            manifest = self._store.manifest(digest)
        except StoreError as error:
            again = "pull" if kind_of(name) == "base" else "extract"
            problems = [
                Problem(str(error).split(";")[0], f"subllm rm {name}, then {again} it again")
            ]
        else:
            problems = self._check_files(name, digest, manifest)
            problems += self._check_sidecar(digest)
            if isinstance(manifest, ModelManifest) and not problems:
                problems += self._check_contents(name, manifest)
        return VerifyResult(name, digest, tuple(problems), self._checked)

    def _check_files(self, name: str, digest: str, manifest: Manifest) -> list[Problem]:
        problems = []
        again = "pull" if isinstance(manifest, BaseManifest) else self._again(digest)
        for blob in dict.fromkeys(blob_digests(manifest)):
            path = self._store.blobs.directory / blob
            if wrong := self._wrong(path, blob):
                fix = f"subllm rm {name}, then {again} it again"
                problems.append(Problem(f"blob {blob[:19]}... {wrong}", fix))
        if isinstance(manifest, BaseManifest):
            for file in manifest.files:
                outside = _outside(file)
                if outside is not None and (wrong := self._wrong(outside, file.digest)):
                    fix = f"put the file back, or subllm pull {name} again"
                    problems.append(Problem(f"{outside} {wrong}", fix))
        return problems

    def _again(self, digest: str) -> str:
        """How a model came here."""
        try:
            record = self._store.run_record(digest)
        except StoreError:
            return "extract"
        return "pull" if record is not None and record.pulled is not None else "extract"

    def _wrong(self, path: Path, digest: str) -> str | None:
        """What is wrong with a file, or None."""
        if path not in self._found:
            if not path.is_file():
                return "is missing"
            try:
                with disk_errors(path):
                    self._found[path] = hash_file(path, self._count)
            except StoreError as error:
                return f"cannot be read ({error})"
        return None if self._found[path] == digest else "does not match its digest"

    def _count(self, size: int) -> None:
        self._checked += size
        self._progress.advance(_TASK, size)

    def _check_sidecar(self, digest: str) -> list[Problem]:
        try:
            self._store.run_record(digest)
        except StoreError as error:
            what, _, fix = str(error).partition("; ")
            return [Problem(what, fix)]
        return []

    def _check_contents(self, name: str, manifest: ModelManifest) -> list[Problem]:
        """Do the tables of the packed files and the tokenizer say what the manifest says?"""
        try:
            with ModelFiles(self._store, manifest) as files:
                complaints = list(disagreements(files))
                files.tokenizer()
        except SubllmError as error:
            complaints = [str(error)]
        fix = f"subllm rm {name}, then extract it again; if that does not help, report a bug"
        return [Problem(complaint, fix) for complaint in complaints]


def disagreements(files: ModelFiles) -> Iterator[str]:
    """Where the packed files say something else than the manifest's table.

    Raises LayoutError for contents that break their own format.
    """
    for blob, reader in (("own", files.own), ("shared", files.shared)):
        entries = {entry.name: entry for entry in files.manifest.tensors if entry.blob == blob}
        for name in sorted(entries.keys() ^ set(reader.names())):
            where = "the manifest's table" if name in entries else "the packed file"
            yield f"tensor {name!r} is only in {where} ({blob})"
        reader.verify()
        for name, entry in entries.items():
            told: tuple[tuple[int, ...], str, str, int]
            if name in reader.table:
                row = reader.table[name]
                told = (row.shape, row.pattern, row.values, reader.tensor(name).kept)
            elif name in reader.vectors:
                size = reader.vector(name).size
                told = ((size,), "dense", "f32", size)
            else:
                continue
            if told != (wanted := (entry.shape, entry.pattern, entry.values, entry.kept)):
                yield f"tensor {name!r} is {told} in the packed file, the manifest says {wanted}"


def _outside(file: FileEntry) -> Path | None:
    where = file.hub_path or file.local_path
    return Path(where) if where else None
