"""The store: blobs, manifests and the names that lead to them.

Order makes it safe: blobs first, then the manifest that needs them, then the name. A
process killed anywhere leaves the old state or the new one, and leftovers that the
next `gc` collects. Whoever writes several objects does it inside `lock` or `writing`,
so that a `gc` beside it spares what no name leads to yet.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from pydantic import ValidationError

from subllm.errors import CorruptError, StoreError, UnknownNameError, UsageError
from subllm.models.store.blobs import BlobStore, check_digest
from subllm.models.store.files import disk_errors, write_atomic
from subllm.models.store.manifest import (
    BaseManifest,
    Manifest,
    ModelManifest,
    RunRecord,
    blob_digests,
    canonical_json,
    decode,
    encode,
    sha256_of,
)
from subllm.models.store.names import MAX_LENGTH, check_model_name, check_name, kind_of
from subllm.models.store.refs import read_refs, write_refs
from subllm.models.store.workspace import Workspace


class Store:
    """The store under `root`. Cheap to open; creates nothing before the first write."""

    def __init__(self, root: Path) -> None:
        """Raises StoreVersionError when another version's store lies there."""
        self.workspace = Workspace(root)
        self.root = self.workspace.root
        self.blobs = BlobStore(self.workspace)

    # Names

    def names(self) -> dict[str, str]:
        """Every name and the manifest digest that it refers to, sorted."""
        return read_refs(self.workspace)

    def resolve(self, name: str) -> str:
        """The manifest digest of `name`; UnknownNameError with the nearest names."""
        names = self.names()
        if name in names:
            return names[name]
        hint = "run 'subllm list' to see what is there"
        raise UnknownNameError(_kind_sought(name), name, names, hint)

    def set_ref(self, name: str, digest: str) -> str | None:
        """Let `name` refer to a stored manifest; returns what it referred to before.

        Refused with UsageError when the name's form does not fit the manifest (a base
        wants `family:size`, a model `family:size-language`), with StoreError when the
        manifest or a blob that it needs is missing: a name leads to whole models only.
        """
        check_name(name)
        with self.workspace.mutation():
            manifest = self.manifest(digest)
            _check_fits(name, manifest)
            for blob in blob_digests(manifest):
                self.blobs.path(blob)
            names = self.names()
            before = names.get(name)
            write_refs(self.workspace, names | {name: digest})
        return before

    # Manifests

    def put_manifest(self, manifest: Manifest) -> str:
        """Store a manifest and return its digest."""
        data = encode(manifest)
        digest = sha256_of(data)
        path = self.manifest_path(digest)
        with self.workspace.mutation():
            self.workspace.pin(path)
            write_atomic(path, data, self.workspace.partials, mode=0o444)
        return digest

    def manifest(self, name_or_digest: str) -> Manifest:
        """Raises UnknownNameError, CorruptError (damaged), StoreError (missing)."""
        digest = name_or_digest
        if not digest.startswith("sha256-"):
            digest = self.resolve(digest)
        path = self.manifest_path(digest)
        try:
            with disk_errors(path):
                data = path.read_bytes()
        except StoreError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise StoreError(
                    f"manifest {digest[:19]}... is missing from the store; "
                    "run 'subllm verify' to see which names need it"
                ) from None
            raise
        if sha256_of(data) != digest:
            raise CorruptError(
                f"manifest {digest[:19]}... does not match its digest; run 'subllm verify'"
            )
        return decode(data)

    def model(self, name: str) -> ModelManifest:
        """The manifest of a model; UsageError when `name` is a base."""
        manifest = self.manifest(name)
        if isinstance(manifest, BaseManifest):
            raise UsageError(f"{name} is a base, not a model; 'subllm add {name}' makes one of it")
        return manifest

    def base(self, name: str) -> BaseManifest:
        """The manifest of a base; UsageError when `name` is a model."""
        manifest = self.manifest(name)
        if isinstance(manifest, ModelManifest):
            raise UsageError(f"{name} is a model, not a base; its base is {manifest.base.name}")
        return manifest

    def find_plan(self, plan_digest: str) -> tuple[str, ModelManifest] | None:
        """The named model that this plan made, if its blobs are all there."""
        for name, digest in self.names().items():
            if kind_of(name) == "base":
                continue
            try:
                manifest = self.manifest(digest)
            except StoreError:
                continue  # another model's damage; verify tells
            if (
                isinstance(manifest, ModelManifest)
                and manifest.plan == plan_digest
                and all(map(self.blobs.has, blob_digests(manifest)))
            ):
                return name, manifest
        return None

    def put_run_record(self, digest: str, record: RunRecord) -> None:
        """Write or replace the sidecar of the manifest `digest`."""
        path = self.run_record_path(digest)
        with self.workspace.mutation():
            self.workspace.pin(path)
            data = canonical_json(record.model_dump(mode="json"))
            write_atomic(path, data, self.workspace.partials)

    def run_record(self, digest: str) -> RunRecord | None:
        """The sidecar; None when there is none. CorruptError when it is damaged."""
        path = self.run_record_path(digest)
        with disk_errors(path):
            if not path.exists():
                return None
            data = path.read_bytes()
        try:
            return RunRecord.model_validate(json.loads(data))
        except (ValueError, ValidationError) as error:
            raise CorruptError(
                f"{path} is damaged; delete it, it holds times and memory only"
            ) from error

    def manifest_path(self, digest: str) -> Path:
        return self.workspace.manifests / f"{check_digest(digest)}.json"

    def run_record_path(self, digest: str) -> Path:
        return self.workspace.manifests / f"{check_digest(digest)}.run.json"

    # Work

    def lock(
        self, key: str, *, wait: bool = True, on_wait: Callable[[str], None] | None = None
    ) -> AbstractContextManager[None]:
        """Hold `key` alone among all processes, as a live writer; LockedError.

        `on_wait` hears once whom it waits for. Lost when the process dies.
        """
        return self.workspace.lock(key, wait=wait, on_wait=on_wait)

    def writing(self) -> AbstractContextManager[None]:
        """Be a live writer without a lock: `gc` spares what is stored meanwhile."""
        return self.workspace.writing()

    def begun(self, key: str) -> bool:
        """Whether there is unfinished work on `key`; see `Workspace.begun`."""
        return self.workspace.begun(key)

    def partial(self, key: str) -> Path:
        """Where unfinished work on `key` lies between runs; see `Workspace.partial`."""
        return self.workspace.partial(key)


def _kind_sought(name: str) -> str:
    """For a message; a name with a typing error still deserves the nearest names."""
    if len(name) > MAX_LENGTH:
        check_name(name)
    try:
        return kind_of(name)
    except UsageError:
        return "name"


def _check_fits(name: str, manifest: Manifest) -> None:
    if kind_of(name) != manifest.kind:
        raise UsageError(
            f"{name} cannot name a {manifest.kind}; bases are family:size, "
            "models family:size-language[-tag]"
        )
    if isinstance(manifest, ModelManifest):
        check_model_name(name, manifest.language)
