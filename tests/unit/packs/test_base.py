from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import base
import pytest
from answers import Sampling

from subllm.catalog.loader import load_catalog
from subllm.catalog.prompt import PromptSpec
from subllm.catalog.schema import HubSource
from subllm.errors import SubllmError
from subllm.settings import load_settings
from subllm.store.manifest import BaseManifest, FileEntry, Licence, sha256_of
from subllm.store.store import Store

WEIGHTS = b"GGUF of a kind"
BASE = {"base": "tiny:1m", "licence": "MIT"}


def test_a_file_is_known_by_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "any-name"
    path.write_bytes(WEIGHTS)
    digest = sha256_of(WEIGHTS)
    with pytest.raises(SystemExit, match="no file of the catalog"):
        base.find_base(str(path))
    source = HubSource(
        type="hub",
        repo="some/repo",
        revision="abc",
        file="m.gguf",
        sha256=digest.removeprefix("sha256-"),
    )
    entry = load_catalog().base("qwen2.5-coder:0.5b").model_copy(update={"sources": (source,)})
    catalog = SimpleNamespace(bases={entry.name: entry})
    monkeypatch.setattr(base, "load_catalog", lambda: catalog)
    assert base.find_base(str(path)) == (
        (path,),
        {
            "base": "qwen2.5-coder:0.5b",
            "source": "hub:some/repo",
            "revision": "abc",
            "digest": digest,
            "licence": "Apache-2.0",
        },
    )


def test_a_base_of_the_store_is_known_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(WEIGHTS)
    entry = FileEntry(
        name="m.gguf", size=len(WEIGHTS), digest=sha256_of(WEIGHTS), local_path=str(path)
    )
    store = Store(load_settings().home)
    with pytest.raises(SubllmError):
        base.find_base("tiny:1m")
    manifest = BaseManifest(
        name="tiny:1m",
        source="path:here",
        revision="r1",
        weights="gguf",
        files=(entry,),
        licence=Licence(id="MIT"),
        prompt=PromptSpec(context_length=64),
    )
    store.set_ref("tiny:1m", store.put_manifest(manifest))
    files, record = base.find_base("tiny:1m")
    assert files == (path,)
    assert record == {
        "base": "tiny:1m",
        "source": "path",
        "revision": "r1",
        "digest": sha256_of(WEIGHTS),
        "licence": "MIT",
    }


def test_a_directory_keeps_to_one_base_and_sampling_but_takes_more_tasks(tmp_path: Path) -> None:
    directory = tmp_path / "answers"
    with pytest.raises(SystemExit, match="make-packs generate"):
        base.read_run(directory)
    made = base.record_run(directory, BASE, Sampling(seed=3), {"python": 5})
    assert made == base.read_run(directory)
    assert made["seed"] == 3
    assert made["sampling"] == {"temperature": 0.8, "top_p": 0.95, "max_new": 448}
    base.record_run(directory, BASE, Sampling(seed=3), {"python": 9})
    assert base.read_run(directory)["tasks"] == {"python": 9}
    for other, sampling in ((BASE, Sampling()), ({**BASE, "base": "b:2"}, Sampling(seed=3))):
        with pytest.raises(SystemExit, match="another base or sampling"):
            base.record_run(directory, other, sampling, {"python": 9})
    assert json.loads((directory / base.RUN_FILE).read_text())["tasks"] == {"python": 9}
