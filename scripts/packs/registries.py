"""Released packages as text files by their path: PyPI, npm and Debian's source archives."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import re
import shutil
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

DEBIAN = "http://deb.debian.org/debian"
_SOURCES = f"{DEBIAN}/dists/stable/main/source/Sources.xz"
_LICENCE_FILE = re.compile(r"(?i)^(licen[cs]e|copying|notice)\b[^/]*$")


@dataclass(frozen=True)
class Archive:
    """files: path inside the package -> text, what is not UTF-8 left out; licence: the texts of
    its licence files."""

    sha256: str
    files: dict[str, str]
    licence: str


def fetch(registry: str, package: str, version: str, cache: Path) -> Archive:
    """From `cache`, where it is there. Raises LookupError when the registry has it not."""
    folder = cache / f"{registry}-{package.replace('/', '-')}-{version}"
    found = _only_file(folder)
    if found is None:
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _FETCH[registry](package, version, partial, cache)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
        found = _only_file(folder)
    if found is None:
        raise LookupError(f"{registry} has no {package} {version}")
    raw = found.read_bytes()
    texts = _unzip(raw) if found.suffix == ".whl" else _untar(raw, found.name)
    notices = sorted(p for p in texts if _LICENCE_FILE.match(PurePosixPath(p).name))
    shortest = min((p.count("/") for p in notices), default=0)
    kept = [texts[p].strip() for p in notices if p.count("/") == shortest or ".dist-info" in p]
    return Archive(hashlib.sha256(raw).hexdigest(), texts, "\n\n".join(kept))


def _only_file(folder: Path) -> Path | None:
    return next((p for p in sorted(folder.glob("*")) if p.is_file()), None)


def _pypi(package: str, version: str, into: Path, _: Path) -> None:
    _call(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
         "--disable-pip-version-check", "--dest", str(into), f"{package}=={version}"]
    )  # fmt: skip


def _npm(package: str, version: str, into: Path, _: Path) -> None:
    _call(["npm", "pack", "--silent", "--pack-destination", str(into), f"{package}@{version}"])


def _debian(package: str, version: str, into: Path, cache: Path) -> None:
    index = cache / "Sources.xz"
    if not index.exists():
        index.write_bytes(_download(_SOURCES))
    for entry in _entries(index).get(package, []):
        name = re.search(rf" (\S+_{re.escape(version)}\.orig\.tar\.\w+)$", entry, re.MULTILINE)
        where = re.search(r"^Directory: (\S+)$", entry, re.MULTILINE)
        if name and where:
            (into / name[1]).write_bytes(_download(f"{DEBIAN}/{where[1]}/{name[1]}"))


@cache
def _entries(index: Path) -> dict[str, list[str]]:
    """Of each source package; unpacking takes seconds."""
    found: dict[str, list[str]] = {}
    for entry in lzma.decompress(index.read_bytes()).decode().split("\n\n"):
        if entry.startswith("Package: "):
            found.setdefault(entry[9 : entry.index("\n")], []).append(entry)
    return found


_FETCH = {"pypi": _pypi, "npm": _npm, "debian": _debian}


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["failed"])[-1]
        raise LookupError(f"{' '.join(command[:4])}: {last}")


def _download(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=300) as response:
        data: bytes = response.read()
    return data


def _unzip(raw: bytes) -> dict[str, str]:
    texts = {}
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        for name in archive.namelist():
            _keep(texts, name, archive.read(name))
    return texts


def _untar(raw: bytes, name: str) -> dict[str, str]:
    data = gzip.decompress(raw) if name.endswith(("gz", "tgz")) else lzma.decompress(raw)
    texts: dict[str, str] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            read = archive.extractfile(member) if member.isfile() else None
            if read is not None:
                # All archives but wheels have one folder around everything.
                _keep(texts, member.name.partition("/")[2], read.read())
    return texts


def _keep(texts: dict[str, str], name: str, raw: bytes) -> None:
    try:
        texts[name] = raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        return
