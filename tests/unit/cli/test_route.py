"""`subllm route`: who would answer, found out without loading anyone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from subllm.models.store.store import Store

from .samples import BASE, Ran

Command = Callable[..., Ran]

JAVA = "public class A { public static void main(String[] args) { System.out.println(1); } }\n"


@pytest.mark.parametrize(
    ("name", "text", "options", "expected"),
    [
        ("a.py", JAVA, [], ("python", "python", "path")),
        ("a", JAVA, [], ("java", "java", "content")),
        ("a.py", JAVA, ["-l", "java"], ("java", "java", "language")),
        ("a.py", JAVA, ["-m", f"{BASE}-java"], ("java", "java", "model")),
        ("a", "# Path: src/x.py\n", [], ("python", "python", "path")),
        ("a.rs", "fn main() {}\n", [], ("java", "rust", "fallback")),
        ("a", "", [], ("java", None, "fallback")),
    ],
)
def test_route(
    name: str,
    text: str,
    options: list[str],
    expected: tuple[str, str | None, str],
    store: Store,
    tmp_path: Path,
    subllm: Command,
) -> None:
    """`store` has a Java and a Python model and no dense one."""
    file = tmp_path / name
    file.write_text(text)
    language, found, reason = expected
    ran = subllm("route", str(file), "--json", *options)
    assert ran.err == ""
    assert ran.json == {
        "file": str(file),
        "model": f"{BASE}-{language}",
        "language": found,
        "reason": reason,
        "draft": None,
        "draft_reason": None,
    }
    lines = subllm("route", str(file), *options).out.splitlines()
    assert lines[0] == f"model     {BASE}-{language}"
    assert lines[2].startswith(f"reason    {reason} (")


def test_a_pipe(store: Store, subllm: Command, piped: Callable[[bytes], None]) -> None:
    piped(JAVA.encode())
    assert subllm("route", "-", "--json").json["model"] == f"{BASE}-java"


def test_errors(store: Store, subllm: Command) -> None:
    ran = subllm("route", "absent.py")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("error: absent.py cannot be read (No such file or directory)")
    ran = subllm("route", __file__, "-m", "tiny-codr:1m")
    assert ran.status == 2
    assert "did you mean" in ran.err


def test_nothing_heavy_is_loaded(store: Store) -> None:
    code = (
        "import sys; from subllm.cli import app\n"
        f"status = app.run(['route', {__file__!r}, '--json'])\n"
        "heavy = {'torch', 'numpy', 'fastapi', 'subllm.serving.server.convert'}\n"
        "heavy &= set(sys.modules)\n"
        "assert (status, heavy) == (0, set()), (status, heavy)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
