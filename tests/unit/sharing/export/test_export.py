"""Where exports go, and what is left when they do not get there."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from oracles.exported_models import exportable
from oracles.packed_models import NAME

from subllm.errors import DiskFullError, SubllmError, UnknownNameError, UsageError
from subllm.models.store.store import Store
from subllm.progress import NullProgress
from subllm.sharing.export.export import export_model


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return exportable(tmp_path_factory.mktemp("home") / "home", "llama")[0]


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_files_and_report(store: Store, tmp_path: Path) -> None:
    report = export_model(store, NAME, tmp_path / "out", "hf")
    assert set(report.files) == names(tmp_path / "out") == {
        "README.md", "chat_template.jinja", "config.json", "generation_config.json",
        "model.safetensors", "subllm.json", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert report.nbytes == sum(p.stat().st_size for p in (tmp_path / "out").iterdir())
    assert names(tmp_path) == {"out"}
    mark = json.loads((tmp_path / "out/subllm.json").read_text())
    assert mark["manifest"] == store.resolve(NAME) and mark["type"] == "bf16"


def test_where_it_may_go(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    export_model(store, NAME, out, "hf")  # an empty directory
    before = (out / "model.safetensors").stat().st_size
    with pytest.raises(UsageError, match=r"there already.*--force"):
        export_model(store, NAME, out, "hf")
    export_model(store, NAME, out, "gguf", force=True)
    assert names(out) == {"README.md", "subllm.json", "tiny-1m-python.gguf"}
    export_model(store, NAME, out, "hf", "f32", force=True)
    assert (out / "model.safetensors").stat().st_size > 1.5 * before
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"notes\.txt, which no export wrote"):
        export_model(store, NAME, out, "hf", force=True)
    assert (out / "notes.txt").read_text() == "mine"
    assert names(tmp_path) == {"out"}


def test_where_it_may_not_go(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "model.safetensors").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "full")
    for where, word in (
        ("file", "no directory"),
        ("link", "no directory"),
        ("full", "no export wrote"),
        ("none/out", "make it first"),
    ):
        with pytest.raises(UsageError, match=word):
            export_model(store, NAME, tmp_path / where, "hf", force=True)
    assert names(tmp_path) == {"file", "full", "link"}


class Stops(NullProgress):
    """Raises after so many bytes."""

    def __init__(self, after: float, error: BaseException) -> None:
        self.left, self.error = after, error

    def advance(self, key: str, amount: float = 1) -> None:
        self.left -= amount
        if self.left < 0:
            raise self.error


@pytest.mark.parametrize("format_name", ["hf", "gguf", "compressed-tensors"])
@pytest.mark.parametrize("after", [0, 20_000])
def test_what_ends_early_leaves_nothing(tmp_path: Path, format_name: str, after: int) -> None:
    store = exportable(tmp_path / "home", "llama", "int8", "2:4")[0]
    for error in (KeyboardInterrupt(), RuntimeError("x")):
        with pytest.raises(type(error)):
            export_model(store, NAME, tmp_path / "out", format_name, progress=Stops(after, error))
        assert names(tmp_path) == {"home"}
    report = export_model(store, NAME, tmp_path / "out", format_name)
    files = {path.name: path.read_bytes() for path in report.directory.iterdir()}
    with pytest.raises(KeyboardInterrupt):
        stops = Stops(after, KeyboardInterrupt())
        export_model(store, NAME, tmp_path / "out", format_name, force=True, progress=stops)
    assert {path.name: path.read_bytes() for path in report.directory.iterdir()} == files
    assert names(tmp_path) == {"home", "out"}


def test_what_a_killed_run_left_goes(store: Store, tmp_path: Path) -> None:
    left = tmp_path / ".out.partial"
    left.mkdir()
    (left / "model.safetensors").write_text("half")
    export_model(store, NAME, tmp_path / "out", "hf")
    assert names(tmp_path) == {"out"}


def test_space_is_asked_for_first(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 1000))
    with pytest.raises(DiskFullError, match="are needed"):
        export_model(store, NAME, tmp_path / "out", "hf")
    assert names(tmp_path) == set()


def test_progress_ends_at_the_size(store: Store, tmp_path: Path) -> None:
    class Sums(NullProgress):
        total = done = 0.0

        def start(self, key: str, title: str, total: Any, unit: Any) -> None:
            self.total, self.unit = total, unit

        def advance(self, key: str, amount: float = 1) -> None:
            self.done += amount

    for format_name, off in (("hf", 0), ("gguf", 40_000)):  # a vocabulary's size is a guess
        seen = Sums()
        report = export_model(store, NAME, tmp_path / format_name, format_name, progress=seen)
        assert seen.unit == "bytes" and abs(seen.total - seen.done) <= off
        assert abs(seen.done - report.nbytes) < 1000  # padding between tensors


def test_names_and_types(store: Store, tmp_path: Path) -> None:
    for format_name, kind, word in (
        ("gguff", None, "did you mean gguf"),
        ("gguf", "q3_k", "use auto, q8_0, f16"),
        ("hf", "auto", "use bf16, f16, f32"),
    ):
        with pytest.raises(UsageError, match=word):
            export_model(store, NAME, tmp_path / "out", format_name, kind)
    with pytest.raises(UnknownNameError):
        export_model(store, "tiny:1m-java", tmp_path / "out", "hf")
    with pytest.raises(SubllmError):
        export_model(store, "tiny:1m", tmp_path / "out", "hf")
    assert names(tmp_path) == set()
