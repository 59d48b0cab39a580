"""What the fake hub does with what is pushed to it: repositories made, large files by the LFS
interface (in one piece or in parts), commits.

    with FakeHub() as hub:
        hub.uploads.part_size = 1 << 20   # from then on large files come in parts
        hub.uploads.room = 0              # nothing fits any more
        hub.uploads.hold_after = 1000     # a file stops after so many bytes
        ...
        assert hub.uploads.came[sha256] == 1
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import yaml

if TYPE_CHECKING:
    from .hub import Repo, _Handler

OWNERS = ("org", "team")  # for whom the good token may write
_LARGE = 10 << 20
_PREUPLOAD = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/preupload/(?P<revision>[^/]+)")
_COMMIT = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/commit/(?P<revision>[^/]+)")
_BATCH = re.compile(r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch")
_OBJECT = re.compile(r"/upload/(?P<oid>[0-9a-f]{64})(/(?P<part>\d+|complete|verify))?")


@dataclass
class Uploads:
    """State and switches.

    objects     large files by sha256; they stay when no commit names them
    came        how often the whole of each came; started: how often one began to come
    part_size   bytes of the parts that files come in; None: in one
    room        bytes that still fit
    hold_after  after so many bytes of a file, or part, nothing is read until the hub's release
    status      what a PUT gets, `times` times
    """

    objects: dict[str, bytes] = field(default_factory=dict)
    came: Counter[str] = field(default_factory=Counter)
    started: Counter[str] = field(default_factory=Counter)
    visibility: dict[str, str] = field(default_factory=dict)
    part_size: int | None = None
    room: int | None = None
    hold_after: int | None = None
    status: int | None = None
    times: int = 1
    _parts: dict[str, dict[int, bytes]] = field(default_factory=dict)


def answer(handler: _Handler) -> bool:
    """Whether the request was one of a push; then it is answered."""
    path = urlsplit(handler.path).path
    if match := _OBJECT.fullmatch(path):
        _object(handler, match)
        return True
    if handler.command != "POST":
        return False
    body = _body(handler)  # all of it, as the connection is used again
    if path == "/api/validate-yaml":
        _validate(handler, body)
    elif path == "/api/repos/create":
        _create(handler, body)
    elif match := _PREUPLOAD.fullmatch(path):
        if repo := _writable(handler, match):
            _preupload(handler, body, repo)
    elif match := _BATCH.fullmatch(path):
        if _writable(handler, match):
            _batch(handler, body)
    elif match := _COMMIT.fullmatch(path):
        if repo := _writable(handler, match):
            _commit(handler, body, repo, unquote(match["revision"]))
    else:
        return False
    return True


def _body(handler: _Handler, on_bytes: Any = None) -> bytes:
    """Of a known length, or in chunks."""
    pieces = bytearray()

    def take(count: int) -> None:
        while count:
            step = min(count, 8192)
            if on_bytes is not None:
                step = on_bytes(len(pieces), step)
            piece = handler.rfile.read(step)
            if not piece:
                raise ConnectionResetError
            pieces.extend(piece)
            count -= len(piece)

    if "chunked" in handler.headers.get("Transfer-Encoding", ""):
        while size := int(handler.rfile.readline().split(b";")[0], 16):
            take(size)
            handler.rfile.readline()
        handler.rfile.readline()
    else:
        take(int(handler.headers.get("Content-Length", "0")))
    return bytes(pieces)


def _json(handler: _Handler, value: Any, status: int = 200) -> None:
    handler.reply(status, {"Content-Type": "application/json"}, json.dumps(value).encode())


def _token(handler: _Handler) -> str:
    return handler.headers.get("Authorization", "").removeprefix("Bearer ")


def _may_write(handler: _Handler, owner: str) -> bool:
    """Answers and returns False where the token may not."""
    from .hub import GOOD_TOKEN, POOR_TOKEN

    token = _token(handler)
    if token not in (GOOD_TOKEN, POOR_TOKEN):
        handler.reply(401, {"X-Error-Message": "Invalid credentials in Authorization header"})
    elif token == POOR_TOKEN or owner not in OWNERS:
        said = f'You don\'t have the rights to create a model under the namespace "{owner}"'
        handler.reply(403, {"X-Error-Message": said})
    else:
        return True
    return False


def _writable(handler: _Handler, match: re.Match[str]) -> Repo | None:
    name = unquote(match["repo"])
    if not _may_write(handler, name.partition("/")[0]):
        return None
    repo = handler.fake.repos.get(("model", name))
    if repo is None:
        handler.reply(404, {"X-Error-Code": "RepoNotFound"})
    return repo


def _validate(handler: _Handler, body: bytes) -> None:
    """The front matter must be YAML with a licence that the hub knows."""
    content = json.loads(body)["content"]
    match = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    errors = []
    try:
        front = yaml.safe_load(match[1]) if match else {}
        if (
            not isinstance(front.get("license"), str)
            or front["license"] != front["license"].lower()
        ):
            errors.append({"message": '"license" must be one of the known'})
    except yaml.YAMLError as error:
        errors.append({"message": str(error)})
    _json(handler, {"errors": errors, "warnings": []}, 400 if errors else 200)


def _create(handler: _Handler, body: bytes) -> None:
    asked = json.loads(body)
    owner = asked["organization"] or "nobody"
    name = f"{owner}/{asked['name']}"
    if not _may_write(handler, owner):
        return
    if ("model", name) in handler.fake.repos:
        _json(handler, {"error": "You already created this model repo", "url": ""}, 409)
        return
    handler.fake.add_repo(name, {".gitattributes": b"*.bin filter=lfs\n"})
    private = asked.get("visibility") == "private" or asked.get("private")
    handler.fake.uploads.visibility[name] = "private" if private else "public"
    _json(handler, {"url": f"{handler.fake.url}/{name}"})


def _preupload(handler: _Handler, body: bytes, repo: Repo) -> None:
    from .hub import etag, is_large

    files = []
    held = repo.commits[repo.commit]
    for asked in json.loads(body)["files"]:
        path = asked["path"]
        large = is_large(path, base64.b64decode(asked["sample"])) or asked["size"] > _LARGE
        file = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
        if path in held:
            file["oid"] = etag(path, held[path])
        files.append(file)
    _json(handler, {"files": files})


def _batch(handler: _Handler, body: bytes) -> None:
    uploads, url = handler.fake.uploads, handler.fake.storage_url
    objects = []
    for asked in json.loads(body)["objects"]:
        oid, size = asked["oid"], asked["size"]
        found: dict[str, Any] = {"oid": oid, "size": size}
        if uploads.room is not None and size > uploads.room:
            found["error"] = {"code": 507, "message": "Storage limit reached for this account"}
        elif oid not in uploads.objects:
            action: dict[str, Any] = {"href": f"{url}/upload/{oid}"}
            if uploads.part_size is not None:
                count = -(-size // uploads.part_size)
                action["header"] = {"chunk_size": str(uploads.part_size)} | {
                    str(part): f"{url}/upload/{oid}/{part}" for part in range(1, count + 1)
                }
                action["href"] += "/complete"
            verify = {"href": f"{url}/upload/{oid}/verify"}
            found["actions"] = {"upload": action, "verify": verify}
        objects.append(found)
    _json(handler, {"transfer": "basic", "objects": objects})


def _object(handler: _Handler, match: re.Match[str]) -> None:
    """Of the store, which knows no tokens: its addresses are secret enough."""
    uploads, oid, part = handler.fake.uploads, match["oid"], match["part"]
    if part == "verify":
        asked = json.loads(_body(handler))
        whole = oid in uploads.objects and len(uploads.objects[oid]) == asked["size"]
        handler.reply(200 if whole else 422, {})
        return
    if part == "complete":
        _body(handler)
        parts = uploads._parts.pop(oid)
        _keep(handler, oid, b"".join(parts[number] for number in sorted(parts)))
        return
    assert handler.command == "PUT" and "authorization" not in handler.headers
    uploads.started[oid] += 1
    if uploads.status is not None and uploads.times > 0:
        uploads.times -= 1
        _body(handler)
        handler.reply(uploads.status, {})
        return

    def slow(position: int, step: int) -> int:
        edge = uploads.hold_after
        if edge is not None and position == edge:
            handler.fake.hold()
        return min(step, edge - position) if edge is not None and position < edge else step

    data = _body(handler, slow)
    if part is None:
        _keep(handler, oid, data)
    else:
        uploads._parts.setdefault(oid, {})[int(part)] = data
        handler.reply(200, {"ETag": f'"{hashlib.md5(data).hexdigest()}"'})


def _keep(handler: _Handler, oid: str, data: bytes) -> None:
    if hashlib.sha256(data).hexdigest() != oid:
        handler.reply(400, {})
        return
    handler.fake.uploads.objects[oid] = data
    handler.fake.uploads.came[oid] += 1
    handler.reply(200, {"ETag": f'"{oid}"'})


def _commit(handler: _Handler, body: bytes, repo: Repo, branch: str) -> None:
    header, *operations = (json.loads(line) for line in body.splitlines())
    parent = header["value"].get("parentCommit")
    if parent not in (None, repo.branches[branch]):
        handler.reply(412, {"X-Error-Message": "A commit has happened since. Please refresh"})
        return
    files = dict(repo.commits[repo.branches[branch]])
    for operation in operations:
        value = operation["value"]
        if operation["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif operation["key"] == "lfsFile":
            files[value["path"]] = handler.fake.uploads.objects[value["oid"]]
        else:
            del files[value["path"]]
    commit = repo.push(files, branch)
    url = f"{handler.fake.url}/{repo.name}/commit/{commit}"
    _json(handler, {"commitUrl": url, "commitOid": commit, "success": True})
