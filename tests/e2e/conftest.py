"""The real 0.5B model in one store for the whole run, made by the README's own commands."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BASE = "qwen2.5-coder:0.5b"
PROGRAM = Path(sys.executable).with_name("subllm")
SAMPLES = "8"
RECIPES = ROOT / "tests" / "e2e"
PLAIN = ("--recover", "off", "--recipe", str(RECIPES / "plain.toml"))
HALF = ("--recover", "off", "--recipe", str(RECIPES / "half.toml"))
"""Of an extraction: as --fast, but with the same numbers whatever the machine's speed."""
"""Calibration sequences of every sub-model here: what is tested does not depend on more."""


@dataclass(frozen=True)
class Run:
    """A finished command line."""

    command: str
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Machine:
    """A user's machine: their store and what they type."""

    home: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        path = f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "SUBLLM_HOME": str(self.home)}

    def shell(self, script: str, **variables: str) -> Run:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=ROOT,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=1500,
            check=False,
        )
        return Run(script, done.returncode, done.stdout, done.stderr)

    def subllm(self, *arguments: str, **variables: str) -> Run:
        done = subprocess.run(
            [PROGRAM, *arguments],
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=1500,
            check=False,
        )
        return Run(" ".join(arguments), done.returncode, done.stdout, done.stderr)

    def ok(self, *arguments: str, **variables: str) -> Run:
        run = self.subllm(*arguments, **variables)
        assert run.code == 0, f"subllm {run.command}\n{run.out}\n{run.err}"
        return run


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tour_commands() -> list[str]:
    """What the README's tour types, a command each."""
    text = (ROOT / "README.md").read_text()
    tour = text.partition("## Tour")[2].partition("\n## ")[0]
    return re.findall(r"^\$ (.*)$", tour, re.MULTILINE)


@pytest.fixture(scope="session")
def machine() -> Machine:
    """A store of the tests' own. The base is fetched once and kept between runs;
    sub-models are made anew."""
    machine = Machine(ROOT / ".build" / "test-home", free_port())
    machine.ok("pull", BASE)
    for row in machine.ok("list", "--json").document:
        if row["name"] != BASE:
            machine.ok("rm", "--yes", row["name"])
    machine.ok("gc")
    shutil.rmtree(machine.home / "partial", ignore_errors=True)
    return machine


@pytest.fixture(scope="session")
def tour(machine: Machine) -> list[Run]:
    """Every command of the tour, run in order on a port of its own; the server is stopped."""
    runs = []
    for command in tour_commands():
        script = command.replace(" --fast", f" {' '.join(PLAIN)}")
        runs.append(machine.shell(script, SUBLLM_PORT=str(machine.port)))
    machine.ok("stop", "--port", str(machine.port))
    return runs


@pytest.fixture(scope="session")
def languages(machine: Machine, tour: list[Run]) -> Machine:
    """Sub-models of the other three languages too; Python is the tour's."""
    for language in ("java", "cpp", "javascript"):
        machine.ok("extract", language, *PLAIN)
    return machine


@pytest.fixture
def server(languages: Machine) -> Iterator[Machine]:
    languages.ok("serve", "--detach", "--port", str(languages.port))
    yield languages
    languages.ok("stop", "--port", str(languages.port))


@pytest.fixture
def tokens_of() -> Callable[[str], list[str]]:
    """Words and symbols of code, to judge that text is code at all."""
    return lambda text: re.findall(r"\w+|[^\w\s]", text)
