"""A user's own code: the files of one language below a directory."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from subllm.errors import CalibrationError
from subllm.making.calibration.ignore import IgnoreRules
from subllm.making.calibration.source import Document, Split, belongs, pieces
from subllm.models.tables.seeded import key

# C goes to the sub-model of C++ and TypeScript to that of JavaScript, as in routing.
EXTENSIONS: dict[str, tuple[str, ...]] = {
    "python": ("py", "pyi", "pyw", "pyx"),
    "java": ("java",),
    "cpp": (
        *("cpp", "cc", "cxx", "c++", "c", "hpp", "hh", "hxx", "h++", "h"),
        *("ipp", "tpp", "inl", "cu", "cuh", "ino"),
    ),
    "javascript": ("js", "jsx", "mjs", "cjs", "ts", "tsx", "mts", "cts"),
    "csharp": ("cs",),
    "go": ("go",),
    "rust": ("rs",),
    "ruby": ("rb",),
    "php": ("php",),
    "kotlin": ("kt", "kts"),
    "swift": ("swift",),
    "scala": ("scala",),
    "lua": ("lua",),
    "perl": ("pl",),
    "r": ("r",),
    "julia": ("jl",),
    "dart": ("dart",),
    "haskell": ("hs",),
    "elixir": ("ex",),
    "zig": ("zig",),
    "sql": ("sql",),
    "shell": ("sh", "bash", "zsh"),
}
_TAGS = {"c": "c", "ts": "typescript", "tsx": "typescript", "mts": "typescript"}
_ALL = frozenset(extension for group in EXTENSIONS.values() for extension in group)

_SKIPPED = frozenset(
    (
        *("node_modules", "bower_components", "vendor", "third_party", "site-packages"),
        *("build", "dist", "out", "target", "coverage", "venv", "__pycache__"),
    )
)
MAX_BYTES = 256 * 1024
MIN_BYTES = 64
_MAX_LINE = 1000  # characters: longer ones are minified or data
_HEADER_LINES = 12
# With fewer files an eighth of them may be none.
_BY_FILE = 32
_GENERATED = re.compile(
    r"(?i)@generated|auto-?generated|generated (?:by|from)\b|do not (?:edit|modify)"
)
_GENERATED_NAME = re.compile(
    r"(?i)(?:_pb2(?:_grpc)?\.pyi?|\.(?:min|bundle|generated|g)\.\w+|\.pb\.\w+)$"
)


class FilesSource:
    """Code under a directory, as git would track it. A file that is binary, generated,
    minified, larger than MAX_BYTES or a symbolic link is passed over. Whole files are held out,
    of few files parts."""

    def __init__(self, root: Path, language: str, split: Split) -> None:
        """`language` none of EXTENSIONS (a domain, "general") takes all code there is."""
        self._root = root.resolve()
        self._extensions = frozenset(EXTENSIONS.get(language, _ALL))
        self._language = language
        self._split = split
        self.name = f"path:{self._root}"

    def documents(self, seed: int) -> Iterator[Document]:
        paths = {path.relative_to(self._root).as_posix(): path for path in self._files()}
        whole = len(paths) >= _BY_FILE
        found = False
        for name in sorted(paths, key=lambda name: key(seed, name)):
            text = read_code(paths[name])
            if text is None:
                continue
            found = True
            file = Document(name, text, tag=tag_of(name))
            for document in pieces(file):
                if belongs(file if whole else document, self._split):
                    yield document
        if not found:
            kinds = " ".join(f".{e}" for e in sorted(self._extensions))
            wanted = self._language if self._language in EXTENSIONS else "code"
            raise CalibrationError(
                f"{self._root} has no {wanted} files that git would track ({kinds}); "
                "give another directory"
            )

    def digest(self) -> str:
        """`<files> sha256-<hex>` over names and contents, of whatever split."""
        hasher, count = hashlib.sha256(), 0
        paths = {path.relative_to(self._root).as_posix(): path for path in self._files()}
        for name in sorted(paths):
            if (text := read_code(paths[name])) is not None:
                data = text.encode("utf-8", "surrogatepass")
                hasher.update(f"{name}\0{len(data)}\n".encode("utf-8", "surrogatepass") + data)
                count += 1
        return f"{count} sha256-{hasher.hexdigest()}"

    def _files(self) -> Iterator[Path]:
        rules = IgnoreRules(self._root)
        for folder, directories, names in os.walk(self._root):
            here = Path(folder)
            rules.enter(here)
            directories[:] = [
                name
                for name in directories
                if not name.startswith(".")
                and name not in _SKIPPED
                and not rules.ignores(here / name, is_directory=True)
            ]
            for name in names:
                path = here / name
                if (
                    extension_of(name) in self._extensions
                    and not path.is_symlink()
                    and not _GENERATED_NAME.search(name)
                    and not rules.ignores(path)
                ):
                    yield path


def extension_of(name: str) -> str:
    return PurePosixPath(name).suffix.lower().removeprefix(".")


def tag_of(name: str) -> str:
    """Tag of a code fence for a file of that name."""
    extension = extension_of(name)
    language = next(name for name, group in EXTENSIONS.items() if extension in group)
    return _TAGS.get(extension, language)


def read_code(path: Path) -> str | None:
    """The text of a file that somebody wrote; None for any other, or one that cannot be
    read."""
    try:
        if not MIN_BYTES <= path.stat().st_size <= MAX_BYTES:
            return None
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
    text = text.replace("\r\n", "\n")
    lines = text.split("\n")
    if "\0" in text or max(map(len, lines)) > _MAX_LINE:
        return None
    if _GENERATED.search("\n".join(lines[:_HEADER_LINES])):
        return None
    return text
