"""The real compiler or parser of every language, asked whether it takes a text.

Nothing of an answer runs, except SQL in an empty database in memory.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import parsers

# Importing these does something, or needs a display.
_NOISY = frozenset({"antigravity", "this", "idlelib", "tkinter", "turtle", "turtledemo"})
TIMEOUT = 120  # seconds; a compiler on a busy machine is slow
_JAVA_PUBLIC = re.compile(
    r"^\s*public\s+(?:(?:final|abstract|sealed|strictfp|static)\s+)*"
    r"(?:class|interface|enum|record|@interface)\s+(\w+)",
    re.MULTILINE,
)
_JS_MODULE = re.compile(r"^\s*(?:import\s+[\w{*\"']|export\s+[\w{*])", re.MULTILINE)
_JS_REQUIRE = re.compile(r"\brequire\(|\bmodule\.exports\b")


@dataclass(frozen=True)
class Checker:
    """`accepts` says whether the tool takes a text; `version` names the tool, or raises
    LookupError saying what is missing."""

    accepts: Callable[[str], bool]
    version: Callable[[], str]


def run(*command: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        input=stdin if stdin is not None else "",
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def tool(name: str) -> str:
    """Raises LookupError when the program is not there."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise LookupError(f"{name} is not installed")
    return found


def first_line(*command: str) -> Callable[[], str]:
    """What the program says of itself; a bare number gets the program's name."""

    def version() -> str:
        done = run(tool(command[0]), *command[1:])
        line = (done.stdout or done.stderr).splitlines()[0].strip()
        return f"{command[0]} {line}" if line[:1].isdigit() or line[:1] == "v" else line

    return version


def accepts_file(suffix: str, *command: str) -> Callable[[str], bool]:
    """By the exit status of `command FILE`, FILE holding the text."""

    def accepts(code: str) -> bool:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / f"answer{suffix}"
            path.write_text(code)
            return run(tool(command[0]), *command[1:], str(path)).returncode == 0

    return accepts


def python_accepts(code: str) -> bool:
    """Compiles, every name is defined, and the standard library has what is imported."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(code)
            compile(tree, "answer.py", "exec")
    except (SyntaxError, ValueError, RecursionError):
        return False
    if not all(_importable(node) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)):
        return False
    rules = "E9,F502,F601,F701,F702,F706,F811,F821,F822,F823"
    done = run(
        tool("ruff"), "check", "--isolated", "--no-cache", "--quiet",
        "--select", rules, "--stdin-filename", "answer.py", "-", stdin=code,
    )  # fmt: skip
    return done.returncode == 0


def _importable(node: ast.ImportFrom) -> bool:
    """Other packages than the standard library's are not looked at."""
    module = node.module or ""
    if node.level or module.partition(".")[0] not in sys.stdlib_module_names - _NOISY:
        return True
    try:
        found = importlib.import_module(module)
        return all(
            alias.name == "*"
            or hasattr(found, alias.name)
            or importlib.util.find_spec(f"{module}.{alias.name}") is not None
            for alias in node.names
        )
    except ImportError:
        return False


def javascript_accepts(code: str) -> bool:
    """As an ES module where it imports or exports, as CommonJS otherwise; not as both."""
    module = bool(_JS_MODULE.search(code))
    if module and _JS_REQUIRE.search(code):
        return False
    return accepts_file(".mjs" if module else ".cjs", "node", "--check")(code)


def java_accepts(code: str) -> bool:
    """The file is named after its public type."""
    public = _JAVA_PUBLIC.search(code)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / f"{public[1] if public else 'Answer'}.java"
        path.write_text(code)
        quick = ("-J-XX:TieredStopAtLevel=1", "-J-XX:+UseSerialGC")
        flags = ("-proc:none", "-nowarn", "-encoding", "UTF-8", "-d", directory)
        return run(tool("javac"), *quick, *flags, str(path)).returncode == 0


def python_version() -> str:
    ruff = run(tool("ruff"), "--version").stdout.strip()
    return f"Python {sys.version.split()[0]} compile, {ruff} undefined names, imports looked up"


CHECKERS = {
    "python": Checker(python_accepts, python_version),
    "javascript": Checker(javascript_accepts, first_line("node", "--version")),
    "cpp": Checker(
        accepts_file(".cpp", "g++", "-std=c++17", "-fsyntax-only", "-w"),
        first_line("g++", "--version"),
    ),
    "java": Checker(java_accepts, first_line("javac", "-version")),
    "c": Checker(
        accepts_file(".c", "gcc", "-std=c17", "-fsyntax-only", "-w", "-D_GNU_SOURCE"),
        first_line("gcc", "--version"),
    ),
    "bash": Checker(accepts_file(".sh", "bash", "-n"), first_line("bash", "--version")),
    "sql": Checker(parsers.sql_accepts, parsers.sql_version),
    "html": Checker(parsers.html_accepts, lambda: "balanced tags by html.parser"),
    "yaml": Checker(parsers.yaml_accepts, parsers.yaml_version),
    **{
        tag: Checker(parsers.tree_sitter(tag), parsers.tree_sitter_version(tag))
        for tag in parsers.GRAMMARS
    },
}
