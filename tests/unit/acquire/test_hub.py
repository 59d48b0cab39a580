"""Bases from a hub: what is taken, where it lies, and everything that goes wrong."""

from __future__ import annotations

import errno
import io
import json
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from fakes.hub import GOOD_TOKEN, POOR_TOKEN, FakeHub, Fault, etag
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

from subllm.acquire import hub_download
from subllm.acquire.pull import base_files, pull
from subllm.errors import (
    AcquireError,
    DigestError,
    DiskFullError,
    GatedError,
    NetworkError,
    OfflineError,
    StoreError,
    SubllmError,
    UsageError,
    WeightsError,
)
from subllm.store.manifest import BaseManifest
from subllm.store.store import Store

from .samples import NAME, REPO, Watcher, catalog, checkpoint, gguf_file, hub_source, sha256, tree

WEIGHTS = "model.safetensors"
TAKEN = {"config.json", "tokenizer.json", "tokenizer_config.json", WEIGHTS}


class Puller:
    """`pull` of the tiny base from one hub, with what it needs kept at hand."""

    def __init__(self, hub: FakeHub, store: Store) -> None:
        self.hub, self.store = hub, store
        self.watcher = Watcher()

    def __call__(self, base: str = NAME, **options: Any) -> BaseManifest:
        self.watcher = Watcher()
        sources = options.pop("sources", (hub_source(),))
        options = {"endpoint": self.hub.url, "probe_seconds": 2.0} | options
        return pull(base, self.store, catalog(*sources), progress=self.watcher, **options)

    def fails(self, kind: type[SubllmError], **options: Any) -> str:
        """The message; the store is as it was."""
        before = tree(self.store.root)
        with pytest.raises(kind) as caught:
            self(**options)
        assert type(caught.value) is kind
        assert tree(self.store.root) == before
        message = str(caught.value)
        assert "\n" not in message
        return message


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
    manifest = puller(sources=(source,))
    assert [file.name for file in manifest.files] == ["tiny.gguf"]
    assert base_files(manifest, puller.store)[0].read_bytes() == data
    assert (manifest.weights, manifest.licence.text) == ("gguf", "Mine.")
    assert puller.hub.sent("other.gguf") == 0


def test_a_gguf_that_the_catalog_does_not_pin(puller: Puller) -> None:
    puller.hub.add_repo(REPO, {"tiny.gguf": b"other bytes"})
    source = hub_source(file="tiny.gguf", sha256="0" * 64, size=11)
    assert "the catalog pins" in puller.fails(DigestError, sources=(source,))
    assert puller.hub.sent("tiny.gguf") == 0
    gone = hub_source(file="gone.gguf")
    assert "no file gone.gguf" in puller.fails(AcquireError, sources=(gone,))


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
    began = time.monotonic()
    message = puller.fails(NetworkError, probe_seconds=0.3)
    assert time.monotonic() - began < 0.6
    assert "did not answer within 0.3 s" in message


def test_a_name_look_up_that_hangs_costs_the_probe_only(
    puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()

    def hang(*_: Any, **__: Any) -> Any:
        ended.wait(5)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    began = time.monotonic()
    puller.fails(NetworkError, probe_seconds=0.3)
    assert time.monotonic() - began < 0.6
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


# Interruptions


def test_a_broken_connection_is_picked_up_within_a_pull(puller: Puller) -> None:
    size = len(checkpoint()[WEIGHTS])
    puller.hub.faults[WEIGHTS] = Fault(cut_after=50_000, times=2)
    manifest = puller()
    assert base_files(manifest, puller.store)[-1].read_bytes() == checkpoint()[WEIGHTS]
    assert puller.hub.sent(WEIGHTS) < size + 40_000  # no byte that arrived came again
    puller.watcher.assert_complete()


def test_the_next_pull_goes_on_where_one_stopped(puller: Puller, hf_cache: Path) -> None:
    puller.hub.faults[WEIGHTS] = Fault(status=503)
    partial = hf_cache / "models--org--tiny/blobs" / (etag(WEIGHTS, checkpoint()[WEIGHTS]))
    partial = partial.with_name(partial.name + ".incomplete")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(checkpoint()[WEIGHTS][:100_000])
    puller.fails(NetworkError)
    assert partial.stat().st_size == 100_000
    del puller.hub.faults[WEIGHTS]
    manifest = puller()
    assert base_files(manifest, puller.store)[-1].read_bytes() == checkpoint()[WEIGHTS]
    assert puller.hub.sent(WEIGHTS) == len(checkpoint()[WEIGHTS]) - 100_000
    assert not partial.exists()
    puller.watcher.assert_complete()


def test_a_server_without_ranges_starts_over(puller: Puller, hf_cache: Path) -> None:
    puller.hub.faults[WEIGHTS] = Fault(ignore_range=True)
    data = checkpoint()[WEIGHTS]
    partial = hf_cache / "models--org--tiny/blobs" / (etag(WEIGHTS, data) + ".incomplete")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(data[:100_000])
    manifest = puller()
    assert base_files(manifest, puller.store)[-1].read_bytes() == data
    assert puller.hub.sent(WEIGHTS) == len(data)
    puller.watcher.assert_complete()


@pytest.mark.parametrize("extra", [0, 5])
def test_a_partial_file_of_full_length_is_still_checked(
    puller: Puller, hf_cache: Path, extra: int
) -> None:
    data = checkpoint()[WEIGHTS]
    partial = hf_cache / "models--org--tiny/blobs" / (etag(WEIGHTS, data) + ".incomplete")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(bytes(len(data) + extra))
    if not extra:
        assert "pull again" in puller.fails(DigestError)
    assert base_files(puller(), puller.store)[-1].read_bytes() == data


# Wrong bytes


def test_wrong_bytes_leave_nothing(puller: Puller, hf_cache: Path) -> None:
    data = checkpoint()[WEIGHTS]
    puller.hub.faults[WEIGHTS] = Fault(instead=bytes(len(data)))
    message = puller.fails(DigestError)
    assert WEIGHTS in message
    assert "nothing was stored" in message
    blobs = hf_cache / "models--org--tiny/blobs"
    assert not (blobs / etag(WEIGHTS, data)).exists()
    assert not list(blobs.glob("*.incomplete"))
    del puller.hub.faults[WEIGHTS]
    assert base_files(puller(), puller.store)[-1].read_bytes() == data


def test_wrong_bytes_of_a_small_file_are_noticed_too(puller: Puller) -> None:
    """Git's own ids of small files are digests as well."""
    data = checkpoint()["tokenizer.json"]
    changed = data.replace(b"<|endoftext|>", b"<|endoftaxt|>")
    puller.hub.faults["tokenizer.json"] = Fault(instead=changed)
    assert "tokenizer.json" in puller.fails(DigestError)


def test_a_damaged_file_in_the_cache_is_named(puller: Puller, hf_cache: Path) -> None:
    found = Path(hf_hub_download(REPO, WEIGHTS, endpoint=puller.hub.url, cache_dir=hf_cache))
    blob = found.resolve()
    blob.write_bytes(bytes(blob.stat().st_size))
    message = puller.fails(DigestError)
    assert str(found) in message
    assert "delete it" in message


def test_a_base_whose_file_is_gone_is_pulled_again(puller: Puller) -> None:
    manifest = puller()
    path = base_files(manifest, puller.store)[-1]
    path.resolve().unlink()
    with pytest.raises(StoreError, match="is gone; pull tiny:1m again"):
        base_files(manifest, puller.store)
    assert base_files(puller(), puller.store)[-1].read_bytes() == checkpoint()[WEIGHTS]
    path.resolve().write_bytes(b"shorter")
    with pytest.raises(StoreError, match="has changed"):
        base_files(manifest, puller.store)


def test_a_cache_that_shares_blobs_between_repositories(puller: Puller, hf_cache: Path) -> None:
    """There a blob is a link once more, to a file whose name is no sha256."""
    manifest = puller()
    blob = base_files(manifest, puller.store)[-1].resolve()
    shared = hf_cache / "blobs" / "ab" / ("ab" * 32)
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(shared)
    puller.hub.status = 503
    again = Puller(puller.hub, Store(puller.store.root.parent / "second"))
    assert again() == manifest


# Disk


def test_free_space_is_checked_before(puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100_000))
    message = puller.fails(DiskFullError)
    assert "are needed" in message
    assert "0.1 MB are free" in message
    assert puller.hub.sent(WEIGHTS) == 0


def test_a_resume_needs_the_missing_bytes_only(
    puller: Puller, hf_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = checkpoint()[WEIGHTS]
    partial = hf_cache / "models--org--tiny/blobs" / (etag(WEIGHTS, data) + ".incomplete")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(data[:150_000])
    usage = shutil.disk_usage("/")
    free = len(data) - 150_000 + 20_000
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))
    assert puller().revision


def _full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


class _FullFile(io.FileIO):
    def write(self, _: Any) -> int:
        return _full()


def test_a_disk_that_fills_up_meanwhile(puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    init = hub_download._Partial.__init__

    def full(self: Any, path: Path, expected: int, on_bytes: Any) -> None:
        init(self, path, expected, on_bytes)
        self._file.close()
        self._file = _FullFile(path, "r+b")

    monkeypatch.setattr(hub_download._Partial, "__init__", full)
    assert "no space left" in puller.fails(DiskFullError)


@pytest.mark.parametrize("step", ["touch", "replace", "mkdir"])
def test_a_full_disk_is_not_taken_for_a_broken_network(
    puller: Puller, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(Path, step, _full)
    with pytest.raises(DiskFullError, match="no space left"):
        hub_download.download(*_client_and_listing(puller), lambda _: None)


def _client_and_listing(puller: Puller) -> Any:
    from subllm.acquire.hub_client import HubClient

    client = HubClient(puller.hub.url)
    listing = client.list_files(REPO)
    return client, listing, listing.files[WEIGHTS]


def test_a_cache_that_cannot_be_written(puller: Puller, hf_cache: Path) -> None:
    hf_cache.parent.mkdir(parents=True, exist_ok=True)
    hf_cache.write_text("a file where the directory should be")
    message = puller.fails(StoreError)
    assert str(hf_cache) in message


def test_data_sets_are_listed_and_fetched_alike(hub: FakeHub, hf_cache: Path) -> None:
    from subllm.acquire.hub_client import HubClient

    hub.add_repo("org/set", {"a.jsonl": b"{}\n", "README.md": b"#"}, "dataset")
    hub.add_repo("org/set", {"default/train/0.parquet": b"PAR1"}, "dataset",
                 branch="refs/convert/parquet")  # fmt: skip
    client = HubClient(hub.url)
    listing = client.list_files("org/set", repo_type="dataset")
    assert set(listing.files) == {"a.jsonl", "README.md"}
    path, digest = hub_download.download(client, listing, listing.files["a.jsonl"], lambda _: None)
    assert path.read_bytes() == b"{}\n"
    assert digest == "sha256-" + sha256(b"{}\n")
    converted = client.list_files("org/set", "refs/convert/parquet", "dataset")
    name = "default/train/0.parquet"
    path, _ = hub_download.download(client, converted, converted.files[name], lambda _: None)
    assert path.read_bytes() == b"PAR1"
    assert try_to_load_from_cache("org/set", name, revision=converted.commit,
                                  repo_type="dataset", cache_dir=hf_cache)  # fmt: skip
