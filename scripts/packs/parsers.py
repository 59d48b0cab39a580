"""Parsers that are libraries: SQL, HTML, YAML, and tree-sitter for the rest.

tree-sitter's grammars are installed into PARSERS by scripts/make-packs.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import sqlite3
import sys
import warnings
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import yaml

PARSERS = Path(__file__).resolve().parents[2] / ".build/packs/parsers"
SQL_STEPS = 10_000_000  # virtual machine instructions before a statement is given up
GRAMMARS = {
    "go": ("tree_sitter_go", "language"),
    "rust": ("tree_sitter_rust", "language"),
    "typescript": ("tree_sitter_typescript", "language_typescript"),
    "ruby": ("tree_sitter_ruby", "language"),
    "kotlin": ("tree_sitter_kotlin", "language"),
    "php": ("tree_sitter_php", "language_php"),
    "csharp": ("tree_sitter_c_sharp", "language"),
}
_VOID_TAGS = "area base br col embed hr img input link meta source track wbr"
_VOID = frozenset(_VOID_TAGS.split())
# Their end tags may be left out.
_OPTIONAL_TAGS = "li p td th tr tbody thead tfoot option dt dd body html head"
_OPTIONAL_END = frozenset(_OPTIONAL_TAGS.split())


def sql_accepts(code: str) -> bool:
    """Whether sqlite runs it on an empty database in memory that may attach nothing."""
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.set_authorizer(_no_files)
        database.set_progress_handler(lambda: 1, SQL_STEPS)
        try:
            database.executescript(code)
        except (sqlite3.Error, sqlite3.Warning, ValueError):
            return False
    return True


def _no_files(action: int, *_: object) -> int:
    return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_ATTACH else sqlite3.SQLITE_OK


def sql_version() -> str:
    return f"sqlite {sqlite3.sqlite_version}"


def yaml_accepts(code: str) -> bool:
    """Documents of mappings or lists: any text at all is a YAML scalar."""
    try:
        documents = list(yaml.safe_load_all(code))
    except (yaml.YAMLError, ValueError, RecursionError):
        return False
    return bool(documents) and all(isinstance(d, dict | list) for d in documents)


def yaml_version() -> str:
    return f"PyYAML {yaml.__version__}"


class _Balance(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.count = 0
        self.balanced = True

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.count += 1
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.count += 1

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open[-1] != tag and self.open[-1] in _OPTIONAL_END:
            self.open.pop()
        if self.open and self.open[-1] == tag:
            self.open.pop()
        else:
            self.balanced = False


def html_accepts(code: str) -> bool:
    """Every end tag closes what is open (html.parser itself takes anything)."""
    parser = _Balance()
    parser.feed(code)
    parser.close()
    left = [tag for tag in parser.open if tag not in _OPTIONAL_END]
    return parser.balanced and parser.count > 2 and not left


@contextlib.contextmanager
def _grammars() -> Iterator[None]:
    sys.path.insert(0, str(PARSERS))
    try:
        yield
    finally:
        sys.path.remove(str(PARSERS))


def tree_sitter(tag: str) -> Callable[[str], bool]:
    """Accepts what the grammar parses without an error or a missing node."""
    module, function = GRAMMARS[tag]

    def accepts(code: str) -> bool:
        with _grammars(), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            library = importlib.import_module("tree_sitter")
            grammar = getattr(importlib.import_module(module), function)()
        parser = library.Parser(library.Language(grammar))
        return not parser.parse(code.encode()).root_node.has_error

    return accepts


def tree_sitter_version(tag: str) -> Callable[[], str]:
    module, _ = GRAMMARS[tag]

    def version() -> str:
        name = module.replace("_", "-")
        try:
            with _grammars():
                return f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            raise LookupError(f"{name} is not installed") from None

    return version
