"""A model hub on this machine: the part of the Hugging Face interface that clients use.

    with FakeHub() as hub:
        repo = hub.add_repo("org/tiny", {"config.json": b"{}", "model.safetensors": weights})
        repo.gated = True
        hub.faults["model.safetensors"] = Fault(cut_after=1000)
        HubClient(endpoint=hub.url) ...
        assert hub.sent("model.safetensors") == len(weights)

Large files (`LFS_SUFFIXES`) redirect to another host name, as the real hub's do to its
storage; small ones redirect within the hub. Both carry the headers that clients read:
ETag, X-Linked-Etag, X-Linked-Size, X-Repo-Commit, X-Error-Code. Ranges are honoured. What is
pushed is in `hub_uploads`.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from . import hub_uploads
from .server import FakeHandler, FakeServer

RepoType = Literal["model", "dataset"]
LFS_SUFFIXES = (".safetensors", ".gguf", ".parquet", ".gz", ".jsonl", ".bin")
GOOD_TOKEN = "hf_good"  # has access to everything
POOR_TOKEN = "hf_poor"  # valid, but no licence was accepted with it
_CHUNK = 16_384


@dataclass
class Fault:
    """What goes wrong while one file is sent. Counts are bytes of that answer's body.

    cut_after     the connection breaks after so many bytes, `times` times
    hold_after    after so many bytes nothing comes until `FakeHub.release()`
    instead       other bytes of the same length are sent
    ignore_range  a range request gets the whole file (200)
    status        this status instead of the file
    """

    cut_after: int | None = None
    times: int = 1_000_000
    hold_after: int | None = None
    instead: bytes | None = None
    ignore_range: bool = False
    status: int | None = None


@dataclass
class Request:
    """One request as the hub saw it, there before it is answered; `sent` counts bytes of a
    file's body, each piece before it goes out. So a client that has its answer finds both."""

    method: str
    host: str
    path: str
    headers: Mapping[str, str]
    sent: int = 0

    @property
    def token(self) -> str | None:
        return self.headers.get("authorization", "").removeprefix("Bearer ") or None


@dataclass
class Repo:
    """Files by commit, commits by branch; the newest commit of `main` is `commit`."""

    name: str
    kind: RepoType
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    gated: bool = False

    @property
    def commit(self) -> str:
        return self.branches["main"]

    def push(self, files: Mapping[str, bytes], branch: str = "main") -> str:
        """A new commit with exactly these files; returns its id."""
        hasher = hashlib.sha1(f"{self.kind}{self.name}{branch}{len(self.commits)}".encode())
        for name in sorted(files):
            hasher.update(name.encode() + files[name])
        commit = hasher.hexdigest()
        self.commits[commit] = dict(files)
        self.branches[branch] = commit
        return commit

    def resolve(self, revision: str) -> str | None:
        """The commit of a branch name or commit id."""
        return self.branches.get(revision) or (revision if revision in self.commits else None)


class FakeHub(FakeServer):
    """Serves while the context lasts. All switches may be changed between requests.

    silent   connections are accepted and never answered
    delay    seconds before each answer
    status   every request gets this status
    faults   file name -> what goes wrong while it is sent
    """

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.repos: dict[tuple[str, str], Repo] = {}
        self.faults: dict[str, Fault] = {}
        self.uploads = hub_uploads.Uploads()
        self.requests: list[Request] = []
        self.silent = False
        self.delay = 0.0
        self.status: int | None = None
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """The endpoint, as for HF_ENDPOINT."""
        return self.origin

    @property
    def storage_url(self) -> str:
        """Where large files lie: another host for whoever follows the redirect."""
        return f"http://localhost:{self.port}"

    def add_repo(
        self,
        name: str,
        files: Mapping[str, bytes],
        kind: RepoType = "model",
        *,
        branch: str = "main",
    ) -> Repo:
        """A repository, or one branch more of it."""
        repo = self.repos.setdefault((kind, name), Repo(name, kind))
        repo.push(files, branch)
        return repo

    def sent(self, name: str) -> int:
        """Bytes of the file `name` that went out, over all requests."""
        with self._lock:
            return sum(r.sent for r in self.requests if unquote(r.path).endswith("/" + name))

    def record(self, request: Request) -> None:
        with self._lock:
            self.requests.append(request)


_INFO = re.compile(
    r"/api/(?P<kind>models|datasets)/(?P<repo>[^/]+/[^/]+)(/revision/(?P<revision>[^/]+))?"
)
_RESOLVE = re.compile(
    r"(?P<kind>/datasets)?/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)"
)
_SMALL = re.compile(
    r"/api/resolve-cache/(?P<kind>models|datasets)/(?P<repo>[^/]+/[^/]+)/"
    r"(?P<revision>[0-9a-f]{40})/(?P<file>.+)"
)
_LARGE = re.compile(
    r"/storage/(?P<kind>model|dataset)/(?P<repo>[^/]+/[^/]+)/(?P<revision>[0-9a-f]{40})/"
    r"(?P<file>.+)"
)


class _Handler(FakeHandler[FakeHub]):
    _request: Request

    def answer(self) -> None:
        headers = {key.lower(): value for key, value in self.headers.items()}
        host = headers.get("host", "").partition(":")[0]
        self._request = Request(self.command, host, self.path, headers)
        self.fake.record(self._request)
        if self.fake.silent:
            self.fake.hold()
            self.close_connection = True
            return
        time.sleep(self.fake.delay)
        self._route()

    def _route(self) -> None:
        if self.fake.status is not None:
            self._plain(self.fake.status)
            return
        path = urlsplit(self.path).path
        if hub_uploads.answer(self):
            return
        if match := _LARGE.fullmatch(path):
            self._file(self._repo(match), match["revision"], unquote(match["file"]))
        elif match := _SMALL.fullmatch(path):
            repo = self._repo(match)
            if self._allowed(repo, contents=True):
                self._file(repo, match["revision"], unquote(match["file"]))
        elif match := _INFO.fullmatch(path):
            self._info(match)
        elif match := _RESOLVE.fullmatch(path):
            self._resolve(match)
        else:
            self._plain(404, {"X-Error-Code": "EntryNotFound"})

    def _repo(self, match: re.Match[str]) -> Repo | None:
        kind = "dataset" if "dataset" in (match["kind"] or "") else "model"
        return self.fake.repos.get((kind, unquote(match["repo"])))

    def _allowed(self, repo: Repo | None, *, contents: bool) -> bool:
        """Answers and returns False where the token does not reach."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in ("", GOOD_TOKEN, POOR_TOKEN):
            self._plain(401, {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif repo is None:
            # Nobody is told whether a private repository is there.
            headers = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
            self._plain(404 if token else 401, headers)
        elif contents and repo.gated and token != GOOD_TOKEN:
            headers = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"}
            self._plain(403 if token else 401, headers)
        else:
            return True
        return False

    def _info(self, match: re.Match[str]) -> None:
        repo = self._repo(match)
        # What a gated repository holds is public; only its files are not.
        if not self._allowed(repo, contents=False) or repo is None:
            return
        commit = repo.resolve(unquote(match["revision"] or "main"))
        if commit is None:
            self._plain(404, {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [_sibling(name, data) for name, data in sorted(repo.commits[commit].items())]
        info = {
            "_id": commit[:24],
            "id": repo.name,
            "modelId": repo.name,
            "sha": commit,
            "private": False,
            "gated": "manual" if repo.gated else False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": siblings,
        }
        self._plain(200, {"Content-Type": "application/json"}, json.dumps(info).encode())

    def _resolve(self, match: re.Match[str]) -> None:
        repo, name = self._repo(match), unquote(match["file"])
        if not self._allowed(repo, contents=True) or repo is None:
            return
        commit = repo.resolve(unquote(match["revision"]))
        if commit is None:
            self._plain(404, {"X-Error-Code": "RevisionNotFound"})
            return
        data = repo.commits[commit].get(name)
        if data is None:
            self._plain(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        headers = {
            "X-Repo-Commit": commit,
            "X-Linked-Size": str(len(data)),
            "X-Linked-Etag": f'"{etag(name, data)}"',
        }
        quoted = match["file"]
        if is_large(name, data):
            path = f"/storage/{repo.kind}/{repo.name}/{commit}/{quoted}"
            self._plain(302, headers | {"Location": self.fake.storage_url + path})
        else:
            path = f"/api/resolve-cache/{repo.kind}s/{repo.name}/{commit}/{quoted}"
            self._plain(307, headers | {"Location": path})

    def _file(self, repo: Repo | None, commit: str, name: str) -> None:
        data = None if repo is None else repo.commits[commit].get(name)
        if data is None:
            self._plain(404, {"X-Error-Code": "EntryNotFound"})
            return
        fault = self.fake.faults.get(name, Fault())
        if fault.status is not None:
            self._plain(fault.status)
            return
        tag, size = etag(name, data), len(data)
        body = data if fault.instead is None else fault.instead
        start, stop = 0, size
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        partial = asked is not None and not fault.ignore_range
        if asked is not None and partial:
            start = int(asked[1])
            stop = min(int(asked[2]) + 1, size) if asked[2] else size
            if start >= size:
                self._plain(416, {"Content-Range": f"bytes */{size}"})
                return
        self.send_response(206 if partial else 200)
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{tag}"')
        self.send_header("X-Repo-Commit", commit)
        self.end_headers()
        if self.command == "GET":
            self._send(body[start:stop], fault)

    def _send(self, body: bytes, fault: Fault) -> None:
        cut = fault.cut_after if fault.times > 0 else None
        for start in range(0, len(body), _CHUNK):
            piece = body[start : start + _CHUNK]
            for edge in (cut, fault.hold_after):
                if edge is not None and start < edge < start + len(piece):
                    piece = piece[: edge - start]
            stop = self._request.sent = start + len(piece)
            self.wfile.write(piece)
            self.wfile.flush()
            if stop == fault.hold_after:
                self.fake.hold()
                rest = body[stop:]
                self.wfile.write(rest)
                self._request.sent += len(rest)
                return
            if stop == cut:
                fault.times -= 1
                self.close_connection = True
                return

    def _plain(
        self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> None:
        self.reply(status, headers or {}, body)


def is_large(name: str, data: bytes) -> bool:
    """By its name, or as a blob that is no text."""
    return name.endswith(LFS_SUFFIXES) or (name.startswith("blobs/") and b"\0" in data[:512])


def git_sha1(data: bytes) -> str:
    """The id that git gives a file of these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def etag(name: str, data: bytes) -> str:
    """What the hub calls a file's content: sha256 of large files, git's id of others."""
    return hashlib.sha256(data).hexdigest() if is_large(name, data) else git_sha1(data)


def _sibling(name: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": git_sha1(data)}
    if is_large(name, data):
        sha256 = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 134}
    return entry
