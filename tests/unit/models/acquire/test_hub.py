"""Bases from a hub: what is taken, where it lies, and everything that goes wrong."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from fakes.hub import GOOD_TOKEN, POOR_TOKEN, FakeHub
from huggingface_hub import constants, hf_hub_download

from subllm.errors import (
    AcquireError,
    DigestError,
    GatedError,
    NetworkError,
    OfflineError,
    SubllmError,
    UsageError,
    WeightsError,
)
from subllm.models.acquire.pull import base_files
from subllm.models.store.store import Store

from .samples import REPO, Puller, catalog, checkpoint, gguf_file, hub_source, sha256

WEIGHTS = "model.safetensors"
TAKEN = {"config.json", "tokenizer.json", "tokenizer_config.json", WEIGHTS}


@pytest.fixture
def puller(hub: FakeHub, store: Store) -> Puller:
    hub.add_repo(REPO, checkpoint())
    return Puller(hub, store)


# What is taken


def test_a_checkpoint_arrives_whole_and_nothing_else_does(puller: Puller, hf_cache: Path) -> None:
    manifest = puller()
    files = checkpoint()
    assert {file.name for file in manifest.files} == TAKEN
    for entry, path in zip(manifest.files, base_files(manifest, puller.store), strict=True):
        assert path.read_bytes() == files[entry.name]
        assert entry.digest == f"sha256-{sha256(files[entry.name])}"
        assert path.is_relative_to(hf_cache)
    commit = puller.hub.repos["model", REPO].commit
    assert (manifest.source, manifest.revision) == (f"hub:{REPO}", commit)
    assert manifest.weights == "safetensors"
    assert (manifest.licence.id, manifest.licence.text) == ("Apache-2.0", "Do as you like.")
    assert manifest.prompt.stop_tokens == ("<e>",)
    puller.watcher.assert_complete()
    for unwanted in ("pytorch_model.bin", "modeling_tiny.py", "model.onnx", "README.md"):
        assert puller.hub.sent(unwanted) == 0


def test_other_tools_find_the_files_in_the_usual_cache(puller: Puller, hf_cache: Path) -> None:
    blobs = list(puller.store.workspace.blobs.iterdir())
    manifest = puller()
    found = hf_hub_download(REPO, WEIGHTS, cache_dir=hf_cache, local_files_only=True)
    assert Path(found).read_bytes() == checkpoint()[WEIGHTS]
    assert list(puller.store.workspace.blobs.iterdir()) == blobs  # no second copy
    assert Path(found).resolve().parent.name == "blobs"
    assert manifest.files[-1].hub_path == found


def test_files_of_another_tool_are_used_where_they_lie(puller: Puller, hf_cache: Path) -> None:
    found = hf_hub_download(REPO, WEIGHTS, endpoint=puller.hub.url, cache_dir=hf_cache)
    came = puller.hub.sent(WEIGHTS)
    assert came == len(checkpoint()[WEIGHTS])
    manifest = puller()
    assert puller.hub.sent(WEIGHTS) == came
    assert manifest.files[-1].hub_path == found
    puller.watcher.assert_complete()


def test_a_pull_again_fetches_nothing(puller: Puller) -> None:
    first = puller()
    asked = len(puller.hub.requests)
    assert puller() == first
    assert len(puller.hub.requests) == asked
    assert "is in the store already" in puller.watcher.heard


def test_a_shard_per_index_is_taken(puller: Puller) -> None:
    files = checkpoint()
    whole = files.pop(WEIGHTS)
    shards = {f"model-0000{i}-of-00002.safetensors": whole[:-i] for i in (1, 2)}
    index = json.dumps({"weight_map": {f"t.{name}": name for name in shards}})
    extra = {"model-00003-of-00003.safetensors": b"x" * 100}
    puller.hub.add_repo(
        REPO, files | shards | extra | {"model.safetensors.index.json": index.encode()}
    )
    manifest = puller()
    names = {file.name for file in manifest.files}
    assert names == (TAKEN - {WEIGHTS}) | set(shards) | {"model.safetensors.index.json"}
    assert puller.hub.sent("model-00003-of-00003.safetensors") == 0


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({WEIGHTS: None}, AcquireError, "pickles only"),
        ({"config.json": None}, AcquireError, "no config.json"),
        ({"tokenizer.json": None}, AcquireError, "no tokenizer.json"),
        ({"config.json": b"{"}, WeightsError, "not JSON"),
        ({"config.json": b'{"model_type": "gpt9"}'}, WeightsError, "gpt9"),
        ({WEIGHTS: None, "pytorch_model.bin": None}, AcquireError, "no safetensors"),
        ({WEIGHTS: None, "pytorch_model.bin": None, "a.gguf": b"G"}, AcquireError, "GGUF files"),
        ({"model.safetensors.index.json": b"[]"}, AcquireError, "malformed"),
        (
            {"model.safetensors.index.json": b'{"weight_map": {"a": "../x.safetensors"}}'},
            AcquireError,
            "no weights file",
        ),
        (
            {"model.safetensors.index.json": b'{"weight_map": {"a": "gone.safetensors"}}'},
            AcquireError,
            "is not there",
        ),
    ],
)
def test_a_repository_that_is_no_checkpoint(
    puller: Puller, change: dict[str, bytes | None], kind: type[SubllmError], message: str
) -> None:
    files = {k: v for k, v in (checkpoint() | change).items() if v is not None}
    puller.hub.add_repo(REPO, files)
    assert message in puller.fails(kind)
    assert puller.hub.sent(WEIGHTS) == 0


def test_one_gguf_file_by_its_digest(puller: Puller, tmp_path: Path) -> None:
    data = gguf_file(tmp_path / "tiny.gguf")
    puller.hub.add_repo(REPO, {"tiny.gguf": data, "other.gguf": b"x", "LICENSE": b"Mine."})
    source = hub_source(file="tiny.gguf", sha256=sha256(data), size=len(data))
    manifest = puller(known=catalog(source))
    assert [file.name for file in manifest.files] == ["tiny.gguf"]
    assert base_files(manifest, puller.store)[0].read_bytes() == data
    assert (manifest.weights, manifest.licence.text) == ("gguf", "Mine.")
    assert puller.hub.sent("other.gguf") == 0


def test_a_gguf_that_the_catalog_does_not_pin(puller: Puller) -> None:
    puller.hub.add_repo(REPO, {"tiny.gguf": b"other bytes"})
    source = hub_source(file="tiny.gguf", sha256="0" * 64, size=11)
    assert "the catalog pins" in puller.fails(DigestError, known=catalog(source))
    assert puller.hub.sent("tiny.gguf") == 0
    gone = hub_source(file="gone.gguf")
    assert "no file gone.gguf" in puller.fails(AcquireError, known=catalog(gone))


# Names and revisions


def test_a_repository_by_name(puller: Puller) -> None:
    manifest = puller(f"hf:{REPO}", name="mine:1b")
    assert manifest.name == "mine:1b"
    assert manifest.licence.id == "LicenseRef-Unknown"
    assert manifest.licence.text == "Do as you like."
    # What the catalog does not know is read from the repository.
    assert manifest.prompt.context_length == 1024
    assert manifest.prompt.fim is not None
    assert manifest.prompt.fim.prefix == "<|fim_prefix|>"
    assert manifest.prompt.fim.file_separator is None
    assert "<|endoftext|>" in manifest.prompt.stop_tokens


def test_a_revision_is_another_base(puller: Puller) -> None:
    repo = puller.hub.repos["model", REPO]
    old = repo.commit
    repo.push(checkpoint(1))
    repo.push(checkpoint(2), "v2")
    expected = {"main": 1, "v2": 2, old: 0}
    for revision, seed in expected.items():
        manifest = puller(f"hf:{REPO}@{revision}", name="mine:1b")
        assert manifest.revision == repo.resolve(revision)
        assert manifest.files[-1].digest == f"sha256-{sha256(checkpoint(seed)[WEIGHTS])}"
    assert "was another base before" in puller.watcher.heard


@pytest.mark.parametrize(
    "base",
    ["hf:", "hf:tiny", "hf:a/b/c", "hf:../x", "hf:a/b@", "hf:a/b@-x", "hf:orgé/x", "hf:a/b@x é",
     "hf:a/b@x/../../../secret", "hf:a/b\n"],
)  # fmt: skip
def test_a_malformed_repository(puller: Puller, base: str) -> None:
    assert "hf:org/name" in puller.fails(UsageError, base=base, name="mine:1b")
    assert not puller.hub.requests


def test_a_missing_repository_and_revision(puller: Puller) -> None:
    message = puller.fails(AcquireError, base="hf:org/none", name="mine:1b")
    assert "has no repository org/none" in message
    assert "HF_TOKEN" in message
    message = puller.fails(AcquireError, base="hf:org/none", name="mine:1b", token=GOOD_TOKEN)
    assert "has no repository org/none" in message
    assert "HF_TOKEN" not in message
    message = puller.fails(AcquireError, base=f"hf:{REPO}@v9", name="mine:1b")
    assert "no such revision" in message


# Access


def test_a_gated_repository(puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    puller.hub.repos["model", REPO].gated = True
    message = puller.fails(GatedError)
    assert f"accept its licence at {puller.hub.url}/{REPO} and set HF_TOKEN" in message
    assert "your token has no access" in puller.fails(GatedError, token=POOR_TOKEN)
    assert "check HF_TOKEN" in puller.fails(GatedError, token="hf_wrong")
    assert puller.hub.sent(WEIGHTS) == 0
    monkeypatch.setenv("HF_TOKEN", GOOD_TOKEN)
    assert puller().source == f"hub:{REPO}"
    # The storage's host is another's, and needs no token.
    stored = [r for r in puller.hub.requests if r.path.startswith("/storage/")]
    assert stored
    assert {r.host for r in stored} == {"localhost"}
    assert {r.token for r in stored} == {None}


def test_the_token_file_of_the_hub_counts(puller: Puller) -> None:
    puller.hub.repos["model", REPO].gated = True
    path = Path(constants.HF_TOKEN_PATH)
    path.parent.mkdir(parents=True)
    path.write_text(GOOD_TOKEN)
    assert puller().revision


# Silence and trouble


def test_a_silent_hub_costs_the_probe_only(puller: Puller) -> None:
    puller.hub.silent = True
    message = puller.fails(NetworkError, probe_seconds=0.3)  # it never answers
    assert "did not answer within 0.3 s" in message


def test_a_name_look_up_that_hangs_costs_the_probe_only(
    puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()

    def hang(*_: Any, **__: Any) -> Any:
        ended.wait()
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        puller.fails(NetworkError, probe_seconds=0.3)
    finally:
        ended.set()


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_hub_in_trouble(puller: Puller, status: int) -> None:
    puller.hub.status = status
    message = puller.fails(NetworkError)
    assert str(status) in message
    assert "later" in message


def test_a_hub_that_is_not_there(puller: Puller) -> None:
    assert "could not be reached" in puller.fails(NetworkError, endpoint="http://127.0.0.1:9")


def test_something_else_answers_for_the_hub(
    puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A captive portal says 200 to everything."""
    import fakes.hub

    monkeypatch.setattr(
        fakes.hub._Handler,
        "_route",
        lambda self: self._plain(200, {"Content-Type": "text/html"}, b"<html>log in</html>"),
    )
    message = puller.fails(NetworkError)
    assert puller.hub.url in message


def test_the_cache_serves_when_the_hub_does_not(puller: Puller, tmp_path: Path) -> None:
    first = puller()
    puller.hub.status = 503
    elsewhere = Puller(puller.hub, Store(tmp_path / "second"))
    assert elsewhere() == first
    assert "in the Hugging Face cache" in elsewhere.watcher.heard
    elsewhere.watcher.assert_complete()


def test_an_incomplete_cache_does_not(puller: Puller, hf_cache: Path) -> None:
    hf_hub_download(REPO, "config.json", endpoint=puller.hub.url, cache_dir=hf_cache)
    puller.hub.status = 503
    assert "503" in puller.fails(NetworkError)


def test_offline_takes_what_the_cache_holds(puller: Puller, hf_cache: Path) -> None:
    assert "SUBLLM_OFFLINE" in puller.fails(OfflineError, offline=True)
    hf_hub_download(REPO, "config.json", endpoint=puller.hub.url, cache_dir=hf_cache)
    assert "SUBLLM_OFFLINE" in puller.fails(OfflineError, offline=True)
    for name in TAKEN:
        hf_hub_download(REPO, name, endpoint=puller.hub.url, cache_dir=hf_cache)
    asked = len(puller.hub.requests)
    manifest = puller(offline=True)
    assert {file.name for file in manifest.files} == TAKEN
    assert len(puller.hub.requests) == asked


def test_offline_after_a_pull_of_ours(puller: Puller, tmp_path: Path) -> None:
    first = puller()
    asked = len(puller.hub.requests)
    assert Puller(puller.hub, Store(tmp_path / "second"))(offline=True) == first
    assert len(puller.hub.requests) == asked
