"""The directory tree of a store, its version, and who may change it when.

    version      the layout of this tree
    refs         the index: name -> manifest digest
    blobs/       sha256-...: immutable, read-only
    manifests/   sha256-....json, and sha256-....run.json beside it
    locks/       lock files, and the pins of live writers
    partial/     everything unfinished
    recovery/    per model what a recovery needs to go on, see `recovery_state`
    cache/       forms of blobs that load faster and what was measured of bases, made again
                 where they are missing; and what values were rounded from, see `unrounded`

Opening reads only the version; nothing is created before the first write, so an empty
or read-only store can be listed.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from subllm.errors import StoreError, StoreVersionError
from subllm.models.store import locks
from subllm.models.store.files import disk_errors, write_atomic

STORE_VERSION = 1
# Mutations take milliseconds; only a stopped process keeps others out longer.
_MUTATION_TIMEOUT = 60.0


class Workspace:
    """Paths, locks and live writers of the store under `root`. Thread-safe."""

    def __init__(self, root: Path) -> None:
        """Raises StoreVersionError when the tree is not one that this version reads."""
        self.root = root.absolute()
        self.blobs = self.root / "blobs"
        self.manifests = self.root / "manifests"
        self.locks = self.root / "locks"
        self.partials = self.root / "partial"
        self.recoveries = self.root / "recovery"
        self.cache = self.root / "cache"
        self.refs = self.root / "refs"
        self._version = self.root / "version"
        self._prepared = False
        self._thread_lock = threading.RLock()
        self._mutation_depth = 0
        self._writers = 0
        self._session: locks.Session | None = None
        self._handed_out: set[str] = set()  # partial paths, pinned by every later session
        with disk_errors(self.root):
            self._check_version()

    def _check_version(self) -> None:
        if self.root.exists() and not self.root.is_dir():
            raise StoreError(f"{self.root} is not a directory; point SUBLLM_HOME at one")
        try:
            found = self._version.read_text(errors="replace").strip()
        except FileNotFoundError:
            if self.blobs.exists() or self.manifests.exists():
                raise StoreVersionError(
                    f"{self.root} holds blobs but no version file; it is no store that this "
                    "subllm can read, point SUBLLM_HOME at another directory"
                ) from None
            return
        if found == str(STORE_VERSION):
            return
        newer = re.fullmatch(r"[0-9]{1,9}", found) and int(found) > STORE_VERSION
        raise StoreVersionError(
            f"the store in {self.root} has version {found[:20]!a}, this subllm reads "
            f"{STORE_VERSION}; "
            + ("update subllm" if newer else "point SUBLLM_HOME at another directory")
        )

    def _prepare(self) -> None:
        if self._prepared:
            return
        with disk_errors(self.root):
            # The version comes before any directory that would make it missed.
            self.partials.mkdir(parents=True, exist_ok=True)
            if not self._version.exists():
                write_atomic(self._version, f"{STORE_VERSION}\n".encode(), self.partials)
            for directory in (self.locks, self.blobs, self.manifests):
                directory.mkdir(exist_ok=True)
        self._prepared = True

    @contextmanager
    def mutation(self) -> Iterator[None]:
        """The one lock under which objects and names appear and vanish; re-entrant.

        Held for moments only. Raises LockedError after a minute.
        """
        with self._thread_lock:
            if self._mutation_depth:
                yield
                return
            self._prepare()
            path = self.locks / "store.lock"
            with locks.hold(path, "store", timeout=_MUTATION_TIMEOUT):
                self._mutation_depth = 1
                try:
                    yield
                finally:
                    self._mutation_depth = 0

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be a live writer: what is pinned meanwhile is safe from garbage collection."""
        self._enter()
        try:
            yield
        finally:
            with self._thread_lock:
                self._writers -= 1
                if not self._writers and self._session is not None:
                    self._session.close()
                    self._session = None

    def _enter(self) -> None:
        with self._thread_lock:
            if self._session is None:
                with self.mutation():
                    session = locks.Session(self.locks)
                try:
                    for path in sorted(self._handed_out):
                        session.pin(path)
                except BaseException:
                    session.close()
                    raise
                self._session = session
            self._writers += 1

    def pin(self, path: Path) -> None:
        """Keep `path` while this writer lives; does nothing when none is active."""
        with self._thread_lock:
            if self._session is not None:
                self._session.pin(self.relative(path))

    @contextmanager
    def lock(
        self, key: str, *, wait: bool = True, on_wait: Callable[[str], None] | None = None
    ) -> Iterator[None]:
        """Hold the lock `key` and be a live writer; see `locks.hold`."""
        self._prepare()
        path = self.locks / f"key-{slug(key)}.lock"
        with locks.hold(path, key, wait=wait, on_wait=on_wait), self.writing():
            yield

    def begun(self, key: str) -> bool:
        """Whether unfinished work on `key` lies there; writes and pins nothing."""
        return (self.partials / f"key-{slug(key)}").exists()

    def partial(self, key: str) -> Path:
        """A place for unfinished work on `key`: the same path every time, not created.

        The caller makes a file or a directory of it, or adds suffixes to it. It outlives
        a killed process, for a resume, until garbage collection finds no live writer
        that asked for it; so hold `lock` or `writing` while working there.
        """
        self._prepare()
        path = self.partials / f"key-{slug(key)}"
        with self._thread_lock:
            self._handed_out.add(self.relative(path))
            self.pin(path)
        return path

    def compact_tokenizer(self, digest: str) -> Path:
        """Where the compact form of a tokenizer's blob lies, if it was made."""
        return self.cache / f"{digest}.tokenizer"

    def measured(self, base: str, key: str) -> Path:
        """Where a measurement of the base with that manifest digest lies, if it was made; key:
        letters, digits and "-". Garbage collection keeps it as long as a name needs the base."""
        return self.cache / f"{base}.measured-{key}.json"

    def relative(self, path: Path) -> str:
        """How pins and reports name a path: relative to the root, with slashes."""
        return path.relative_to(self.root).as_posix()


def slug(key: str) -> str:
    """A readable file name, without dots, that is another one for every other key."""
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    readable = re.sub(r"[^a-z0-9]+", "-", key.lower()).strip("-")[:40]
    return f"{readable}-{digest}"
