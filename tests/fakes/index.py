"""A package index on this machine: PEP 503 pages and small wheels.

with FakeIndex() as index:
    wheel = index.add("parts-1", "1.0", {"parts_1/data/part01.bin": data})
    environment = index.pip_environment()   # for os.environ: pip then asks here only
    ...
    assert index.downloads("parts-1") == 1
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import threading
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass(frozen=True)
class Wheel:
    """One file of the index."""

    package: str
    name: str
    data: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def size(self) -> int:
        return len(self.data)


class FakeIndex:
    """Serves while the context lasts.

    hold      packages whose wheel stops halfway until `release()`
    status    package -> status that its wheel gets instead of bytes
    """

    def __init__(self) -> None:
        self.wheels: dict[str, list[Wheel]] = {}
        self.hold: set[str] = set()
        self.status: dict[str, int] = {}
        self.paths: list[str] = []
        self._released = threading.Event()
        self._holding = threading.Event()
        handler = type("Handler", (_Handler,), {"index": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False

    def __enter__(self) -> Self:
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/simple"

    def pip_environment(self) -> dict[str, str]:
        """Variables with which pip asks this index only, and once."""
        return {
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_INDEX_URL": self.url,
            "PIP_FIND_LINKS": "",
            "PIP_EXTRA_INDEX_URL": "",
            "PIP_RETRIES": "0",
            "PIP_DEFAULT_TIMEOUT": "120",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }

    def add(self, package: str, version: str, files: Mapping[str, bytes]) -> Wheel:
        wheel = Wheel(package, *build_wheel(package, version, files))
        self.wheels.setdefault(normalized(package), []).append(wheel)
        return wheel

    def downloads(self, package: str) -> int:
        """How often a wheel of `package` was asked for."""
        names = {wheel.name for wheel in self.wheels[normalized(package)]}
        return sum(path.rpartition("/")[2] in names for path in self.paths)

    def wait_holding(self, timeout: float = 120.0) -> None:
        """Returns when a held wheel has been sent by half."""
        assert self._holding.wait(timeout), "no wheel was held"

    def release(self) -> None:
        """Let held wheels go on."""
        self._released.set()


class _Handler(BaseHTTPRequestHandler):
    index: FakeIndex
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.index.paths.append(self.path)
        try:
            self._route()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass

    def _route(self) -> None:
        page = re.fullmatch(r"/simple/([a-z0-9-]+)/", self.path)
        if page and page[1] in self.index.wheels:
            self._reply(200, _page(self.index.wheels[page[1]]), "text/html")
            return
        file = re.fullmatch(r"/files/([a-z0-9-]+)/([^/]+)", self.path)
        wheels = self.index.wheels.get(file[1], []) if file else []
        wheel = next((w for w in wheels if file and w.name == file[2]), None)
        if wheel is None:
            self._reply(404, b"not found", "text/plain")
        elif wheel.package in self.index.status:
            self._reply(self.index.status[wheel.package], b"no", "text/plain")
        else:
            held = wheel.package in self.index.hold
            self._reply(200, wheel.data, "application/octet-stream", held)

    def _reply(self, status: int, body: bytes, kind: str, held: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        half = len(body) // 2 if held else 0
        self.wfile.write(body[:half])
        if held:
            self.wfile.flush()
            self.index._holding.set()
            self.index._released.wait()
        self.wfile.write(body[half:])


def normalized(package: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", package).lower()


def build_wheel(package: str, version: str, files: Mapping[str, bytes]) -> tuple[str, bytes]:
    """File name and bytes of a pure wheel with these files; the same every time."""
    stem = f"{re.sub(r'[-_.]+', '_', package).lower()}-{version}"
    info = f"{stem}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
    contents = dict(files) | {
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    for name, data in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(data)}\n")
    contents[f"{info}/RECORD"] = ("".join(rows) + f"{info}/RECORD,,\n").encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in contents.items():
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), data)
    return f"{stem}-py3-none-any.whl", buffer.getvalue()


def _page(wheels: list[Wheel]) -> bytes:
    links = "".join(
        f'<a href="/files/{normalized(w.package)}/{w.name}#sha256={w.sha256}">{w.name}</a><br>'
        for w in wheels
    )
    return f"<!DOCTYPE html><html><body>{links}</body></html>".encode()
