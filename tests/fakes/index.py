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
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass

from .server import FakeHandler, FakeServer


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


class FakeIndex(FakeServer):
    """Serves while the context lasts.

    hold_back  packages whose wheel stops halfway until `release()`
    status     package -> status that its wheel gets instead of bytes
    """

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.wheels: dict[str, list[Wheel]] = {}
        self.hold_back: set[str] = set()
        self.status: dict[str, int] = {}
        self.paths: list[str] = []

    @property
    def url(self) -> str:
        return f"{self.origin}/simple"

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


class _Handler(FakeHandler[FakeIndex]):
    def answer(self) -> None:
        index = self.fake
        index.paths.append(self.path)
        page = re.fullmatch(r"/simple/([a-z0-9-]+)/", self.path)
        if page and page[1] in index.wheels:
            self.reply(200, {"Content-Type": "text/html"}, _page(index.wheels[page[1]]))
            return
        file = re.fullmatch(r"/files/([a-z0-9-]+)/([^/]+)", self.path)
        wheels = index.wheels.get(file[1], []) if file else []
        wheel = next((w for w in wheels if file and w.name == file[2]), None)
        if wheel is None:
            self.reply(404, {"Content-Type": "text/plain"}, b"not found")
        elif wheel.package in index.status:
            self.reply(index.status[wheel.package], {"Content-Type": "text/plain"}, b"no")
        else:
            self._wheel(wheel)

    def _wheel(self, wheel: Wheel) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(wheel.size))
        self.end_headers()
        half = wheel.size // 2
        self.wfile.write(wheel.data[:half])
        if wheel.package in self.fake.hold_back:
            self.wfile.flush()
            self.fake.hold()
        self.wfile.write(wheel.data[half:])


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
