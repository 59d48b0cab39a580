from __future__ import annotations

import json
from pathlib import Path

import base
import pytest
from answers import Sampling

from subllm.errors import SubllmError
from subllm.models.catalog.prompt import PromptSpec
from subllm.models.store.manifest import BaseManifest, FileEntry, Licence, sha256_of
from subllm.models.store.store import Store
from subllm.settings import load_settings

WEIGHTS = b"GGUF of a kind"
BASE = {"base": "tiny:1m", "licence": "MIT"}


def test_a_base_of_the_store_is_known_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(WEIGHTS)
    entry = FileEntry(
        name="m.gguf", size=len(WEIGHTS), digest=sha256_of(WEIGHTS), local_path=str(path)
    )
    store = Store(load_settings().home)
    with pytest.raises(SubllmError):
        base.find_base(store, "tiny:1m")
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
    record = base.find_base(store, "tiny:1m")
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
