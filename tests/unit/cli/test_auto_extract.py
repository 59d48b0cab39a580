"""What a server begins by itself, extractions and updates: other processes, at low priority."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from subllm.cli import background
from subllm.cli.serve import _extractor, _updater
from subllm.settings import load_settings

from .tiny_store import BASE


def test_only_by_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("auto_extract", "auto_update"):
        assert getattr(load_settings(), name) is False
        monkeypatch.setenv(f"SUBLLM_{name.upper()}", "1")
        assert getattr(load_settings(), name) is True


def test_an_update_is_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[tuple[object, ...]] = []

    class Process:
        def poll(self) -> int | None:
            return None if len(begun) == 1 else 0

    def spawn(*arguments: object, nice: int) -> Process:
        begun.append((*arguments, nice))
        return Process()

    monkeypatch.setattr(background, "spawn", spawn)
    runs = _updater(tmp_path)()
    assert begun == [(["update", "--all"], tmp_path / "run" / "update.log", tmp_path, 19)]
    assert runs()


def test_it_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []
    spawn = background.spawn

    def kept(*arguments: object, **options: object) -> object:
        begun.append(spawn(*arguments, **options))  # type: ignore[arg-type]
        return begun[-1]

    monkeypatch.setattr(background, "spawn", kept)
    runs = _extractor(tmp_path)("python", BASE)
    (process,) = begun
    try:
        assert runs()
        seen = psutil.Process(process.pid)
        command = ["extract", "python", "--base", BASE]
        deadline = time.monotonic() + 30
        # It begins as a copy of its parent, and goes by way of nice.
        while (seen.nice(), seen.cmdline()[-4:]) != (19, command) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (seen.nice(), seen.cmdline()[-4:]) == (19, command)
        assert seen.environ()["SUBLLM_HOME"] == str(tmp_path)
    finally:
        process.kill()
        process.wait()
    assert not runs()
    assert (tmp_path / "run" / "extract-python.log").exists()
