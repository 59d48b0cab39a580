"""Files from a hub: broken off, wrong, damaged, or too large for the disk."""

from __future__ import annotations

import errno
import io
import shutil
from pathlib import Path
from typing import Any

import pytest
from fakes.hub import FakeHub, Fault, etag
from huggingface_hub import hf_hub_download, try_to_load_from_cache

from subllm.errors import (
    DigestError,
    DiskFullError,
    NetworkError,
    StoreError,
)
from subllm.models.acquire import hub_download
from subllm.models.acquire.pull import base_files
from subllm.models.store.store import Store

from .samples import REPO, Puller, checkpoint, sha256

WEIGHTS = "model.safetensors"
TAKEN = {"config.json", "tokenizer.json", "tokenizer_config.json", WEIGHTS}


@pytest.fixture
def puller(hub: FakeHub, store: Store) -> Puller:
    hub.add_repo(REPO, checkpoint())
    return Puller(hub, store)


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
    from subllm.models.acquire.hub_client import HubClient

    client = HubClient(puller.hub.url)
    listing = client.list_files(REPO)
    return client, listing, listing.files[WEIGHTS]


def test_a_cache_that_cannot_be_written(puller: Puller, hf_cache: Path) -> None:
    hf_cache.parent.mkdir(parents=True, exist_ok=True)
    hf_cache.write_text("a file where the directory should be")
    message = puller.fails(StoreError)
    assert str(hf_cache) in message


def test_data_sets_are_listed_and_fetched_alike(hub: FakeHub, hf_cache: Path) -> None:
    from subllm.models.acquire.hub_client import HubClient

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
