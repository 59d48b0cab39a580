"""Places that were changed or made by somebody who means harm: refused before a name shows."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.hub import FakeHub

from subllm.errors import (
    AcquireError,
    DigestError,
    StoreError,
    StoreVersionError,
    SubllmError,
)
from subllm.kernels.sparsity.layout import LAYOUT_VERSION
from subllm.models.acquire.share.index import FORMAT, INDEX, parse_index
from subllm.models.acquire.share.local_place import ArchivePlace
from subllm.models.store.manifest import FORMAT_VERSION, sha256_of
from subllm.models.store.store import Store
from subllm.sharing.exchange.open import open_place

from .samples import PYTHON, change_index, change_manifest, give, refused, take

Change = Callable[[dict[str, Any]], Any]
GONE = "sha256-" + "0" * 64


@pytest.fixture
def place(giver: Store, tmp_path: Path) -> Path:
    give(giver, str(tmp_path / "place"))
    return tmp_path / "place"


def first(index: dict[str, Any]) -> Any:
    return index["models"][0]


def rename(index: dict[str, Any], name: str) -> None:
    first(index)["name"] = name


def twice(index: dict[str, Any]) -> None:
    index["models"] *= 2


def swap_blob(index: dict[str, Any], digest: str) -> None:
    blobs = first(index)["blobs"]
    blobs[digest] = blobs.pop(next(iter(blobs)))


INDEXES: dict[str, Change] = {
    "a path for a name": lambda i: rename(i, "../../etc/passwd"),
    "a name in capitals": lambda i: rename(i, PYTHON.upper()),
    "a base's name": lambda i: rename(i, "tiny-coder:1m"),
    "another model's name": lambda i: rename(i, "tiny-coder:1m-java"),
    "a path for a digest": lambda i: first(i).update(manifest="../../../etc/passwd"),
    "a blob outside": lambda i: swap_blob(i, "sha256-../../../../etc/passwd"),
    "a blob that no manifest needs": lambda i: swap_blob(i, GONE),
    "a size below nothing": lambda i: first(i)["blobs"].update({GONE: -1}),
    "a size beyond all disks": lambda i: first(i)["blobs"].update({GONE: 1 << 62}),
    "a manifest of gigabytes": lambda i: first(i).update(manifest_bytes=1 << 40),
    "the same twice": twice,
    "no models": lambda i: i.pop("models"),
    "an unknown key": lambda i: i.update(run="rm -rf ~"),
    "no object": lambda i: i.update(models="all"),
}


@pytest.mark.parametrize("change", INDEXES.values(), ids=INDEXES.keys())
def test_an_index_that_is_wrong(taker: Store, place: Path, change: Change) -> None:
    change_index(place, change)
    refused(taker, str(place), AcquireError)


def entry(**update: Any) -> Change:
    def change(raw: dict[str, Any]) -> None:
        raw["tensors"][0].update(update)

    return change


MANIFESTS: dict[str, Change] = {
    "escapes for a terminal": lambda m: m["base"].update(source="hub:\x1b[2Jorg"),
    "escapes in the licence": lambda m: m["base"]["licence"].update(text="MIT\x1b]0;x\x07"),
    "escapes in a parameter": lambda m: m["method"].update(params={"a\x1b[0m": 1}),
    "an architecture of its own": lambda m: m["arch"].update(hidden_size=1 << 40),
    "layers without end": lambda m: m["arch"].update(num_layers=1 << 40),
    "half an architecture": lambda m: m["arch"].pop("num_layers"),
    "another shape": entry(shape=[3, 3]),
    "another pattern": entry(pattern="2:4"),
    "another tensor": entry(name="model.layers.99.mlp.up_proj.weight"),
    "no tensors": lambda m: m.update(tensors=[]),
    "a path for a blob": lambda m: m["blobs"].update(own="../../refs"),
    "the wrong blob": lambda m: m["blobs"].update(own=m["blobs"]["tokenizer"]),
    "own and shared exchanged": lambda m: m["blobs"].update(
        own=m["blobs"]["shared"], shared=m["blobs"]["own"]
    ),
    "a model's name for its base": lambda m: m["base"].update(name=PYTHON),
    "another language": lambda m: m.update(language="java"),
    "a base": lambda m: m.update(kind="base"),
    "an unknown key": lambda m: m.update(code="import os"),
}


@pytest.mark.parametrize("change", MANIFESTS.values(), ids=MANIFESTS.keys())
def test_a_manifest_that_is_wrong(taker: Store, place: Path, change: Change) -> None:
    change_manifest(place, change)
    refused(taker, str(place), AcquireError)


def test_a_changed_byte_anywhere(taker: Store, place: Path) -> None:
    for path in sorted([*place.rglob("sha256-*")]):
        data = path.read_bytes()
        path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
        message = refused(taker, str(place), DigestError)
        assert "nothing was stored" in message
        path.write_bytes(data)
    take(taker, str(place))


def test_a_blob_cut_short_or_missing(taker: Store, place: Path) -> None:
    blob = max(place.rglob("sha256-*"), key=lambda path: path.stat().st_size)
    data = blob.read_bytes()
    blob.write_bytes(data[:-1])
    refused(taker, str(place), DigestError)
    blob.unlink()
    assert f"lacks blobs/{blob.name}" in refused(taker, str(place), AcquireError)
    blob.symlink_to("/etc/passwd")
    refused(taker, str(place), StoreError)
    blob.unlink()
    os.mkfifo(blob)
    refused(taker, str(place), AcquireError)


def test_packed_bytes_that_break_their_own_format(giver: Store, taker: Store, place: Path) -> None:
    """With digests that are right: a mask with other bits than its pattern has, say."""
    own = place / "blobs" / giver.model(PYTHON).blobs.own
    data = bytearray(own.read_bytes())
    data[8:40] = b"\xff" * 32  # of the header
    own.unlink()
    digest = sha256_of(bytes(data))
    (place / "blobs" / digest).write_bytes(data)
    change_manifest(place, lambda m: m["blobs"].update(own=digest))
    change_index(place, lambda i: first(i)["blobs"].update({digest: len(data)}))
    change_index(place, lambda i: first(i)["blobs"].pop(own.name))
    assert "malformed" in refused(taker, str(place), AcquireError)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: i.update(format=FORMAT + 1, later=[]), "update subllm"),
        (lambda i: i.update(later=[], subllm="999.1.0"), "pushed by subllm 999.1.0"),
        (lambda i: i.update(format=FORMAT + 1, subllm="\x1b[2J"), "a newer subllm"),
    ],
)
def test_an_index_of_a_newer_version(
    taker: Store, place: Path, change: Change, message: str
) -> None:
    change_index(place, change)
    assert message in refused(taker, str(place), StoreVersionError)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(format=FORMAT_VERSION + 1),
        lambda m: m.update(layout=LAYOUT_VERSION + 1),
    ],
)
def test_a_manifest_of_a_newer_version(taker: Store, place: Path, change: Change) -> None:
    change_manifest(place, change)
    assert "update subllm" in refused(taker, str(place), StoreVersionError)


def test_a_manifest_with_what_a_newer_version_added(taker: Store, place: Path) -> None:
    change_manifest(place, lambda m: m.update(later=1))
    change_index(place, lambda i: i.update(subllm="999.0"))
    assert "update subllm" in refused(taker, str(place), StoreVersionError)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[" * 100_000, b"\xff\xfe", b"null", b"[]", b'{"format": "1"}', b'{"format": 1}'],
)
def test_an_index_that_is_none(data: bytes) -> None:
    with pytest.raises(AcquireError, match="malformed"):
        parse_index(data, "there")


def archive(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def test_an_archive_unpacks_nothing(giver: Store, taker: Store, place: Path) -> None:
    """Members with paths of their own, links and devices are never looked at."""
    file = place.parent / "a.subllm"
    index = (place / INDEX).read_bytes()
    link, outside = tarfile.TarInfo("blobs"), tarfile.TarInfo("../../outside")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc"
    archive(file, (tarfile.TarInfo(INDEX), index), (link, b""), (outside, b"harm"))
    assert "lacks manifests/" in refused(taker, str(file), AcquireError)
    assert not list(place.parent.glob("**/outside"))
    name = json.loads(index)["models"][0]["manifest"]
    hidden = tarfile.TarInfo(f"manifests/{name}.json")
    hidden.type, hidden.linkname = tarfile.LNKTYPE, str(place / f"manifests/{name}.json")
    archive(file, (tarfile.TarInfo(INDEX), index), (hidden, b""))
    assert "lacks manifests/" in refused(taker, str(file), AcquireError)


def test_an_archive_that_is_cut_or_endless(
    giver: Store, taker: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.subllm"
    give(giver, str(file))
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    refused(taker, str(file), DigestError if _reads(file) else AcquireError)
    file.write_bytes(data)
    monkeypatch.setattr("subllm.models.acquire.share.local_place._MEMBERS", 2)
    assert "too many files" in refused(taker, str(file), AcquireError)


def _reads(file: Path) -> bool:
    try:
        ArchivePlace(file)
    except SubllmError:
        return False
    return True


def test_a_hub_that_lies_about_sizes(giver: Store, taker: Store, hub: FakeHub) -> None:
    give(giver, "hf:org/coder")
    repo = hub.repos["model", "org/coder"]
    files = dict(repo.commits[repo.commit])
    blob = next(name for name in files if name.startswith("blobs/"))
    repo.push(files | {blob: files[blob] + b"more"})
    assert "has not the size" in refused(taker, "hf:org/coder", AcquireError)
    repo.push(files | {INDEX: b" " * 17_000_000})
    assert "larger than it can be" in refused(taker, "hf:org/coder", AcquireError)
    changed = bytes([files[blob][0] ^ 1]) + files[blob][1:]
    repo.push(files | {blob: changed})
    refused(taker, "hf:org/coder", DigestError)
    repo.push(files)
    take(taker, "hf:org/coder")
    assert open_place("hf:org/coder", probe_seconds=60).revision == repo.commit
