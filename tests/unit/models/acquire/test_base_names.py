"""What a base is called that came without a name."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import gguf
import pytest
from fakes.hub import FakeHub
from hypothesis import given
from hypothesis import strategies as st

from subllm.errors import UsageError
from subllm.models.acquire.base_names import (
    derive_name,
    directory_titles,
    gguf_titles,
    named_size,
    own_name,
    size_label,
)
from subllm.models.store.names import kind_of
from subllm.models.store.store import Store

from .samples import (
    CONFIG,
    NAME,
    REPO,
    Puller,
    catalog,
    checkpoint,
    gguf_file,
    hub_source,
    sha256,
)

COUNT = "64k"  # parameters of CONFIG


@pytest.fixture
def puller(hub: FakeHub, store: Store) -> Puller:
    return Puller(hub, store)


def write(directory: Path, seed: int = 0, **config: Any) -> Path:
    """A checkpoint in `directory`."""
    directory.mkdir(parents=True)
    for name, data in checkpoint(seed, **config).items():
        if "/" not in name:
            (directory / name).write_bytes(data)
    return directory


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Qwen2.5-Coder-0.5B-Instruct", "qwen2.5-coder:0.5b"),
        ("Qwen2.5 Coder 0.5B Instruct AWQ", "qwen2.5-coder:0.5b"),
        ("qwen2.5-coder-0.5b-instruct-q4_k_m", "qwen2.5-coder:0.5b"),
        ("SmolLM2-135M-Instruct.Q4_1", "smollm2:135m"),
        ("gemma-1.1-7b-it-f16", "gemma-1.1:7b"),
        ("Mistral-7B-Instruct-v0.1", "mistral-v0.1:7b"),
        ("CodeLlama-7b-Instruct-hf", "codellama:7b"),
        ("Mixtral-8x7B-v0.1.i1-IQ3_XXS", "mixtral-v0.1:8x7b"),
        ("starcoder2-3b", "starcoder2:3b"),
        ("my_coder", f"my-coder:{COUNT}"),
        ("Modèle 2", f"modele-2:{COUNT}"),
        ("../..", f"base:{COUNT}"),
        ("模型", f"base:{COUNT}"),
        ("7b", f"base:{COUNT}"),
        ("", f"base:{COUNT}"),
        ("it", f"it:{COUNT}"),
        ("x" * 500, f"{'x' * 48}:{COUNT}"),
    ],
)
def test_a_title_makes_a_name(title: str, name: str) -> None:
    assert derive_name([title], CONFIG) == name
    assert kind_of(name) == "base"


@given(st.lists(st.text(max_size=60), max_size=3))
def test_any_titles_make_a_valid_name(titles: list[str]) -> None:
    name = derive_name(titles, CONFIG)
    assert kind_of(name) == kind_of(own_name(name)) == "base"
    for title in titles:
        assert not (early := named_size(title)) or kind_of(early) == "base"


def test_what_says_nothing_is_passed_over() -> None:
    assert derive_name(["model", "checkpoint-500", "Tiny-1B"], CONFIG) == "tiny:1b"
    assert derive_name(["9f" * 20, "final", ""], CONFIG) == f"{'9f' * 20}:{COUNT}"
    assert named_size("model-7b") == named_size("Tiny") == ""
    assert named_size("Tiny-1B-Instruct") == "tiny:1b"


@pytest.mark.parametrize(
    ("parameters", "label"),
    [
        (1, "1k"), (30_544, "31k"), (134_515_008, "135m"), (494_032_768, "494m"),
        (1_543_714_304, "1.5b"), (7_000_000_000, "7b"), (7_241_732_096, "7.2b"),
        (13_015_864_320, "13b"), (1_000_000_000_000, "1t"),
    ],
)  # fmt: skip
def test_sizes(parameters: int, label: str) -> None:
    assert size_label(parameters) == label


def test_titles_of_a_directory(tmp_path: Path) -> None:
    titles = directory_titles(Path("/m/tuned"), {"_name_or_path": "org/Tiny-1B"})
    assert titles == ("tuned", "Tiny-1B", "m")
    cached = Path(f"/hub/models--org--Tiny-1B/snapshots/{'0a' * 20}")
    assert derive_name(directory_titles(cached, {"_name_or_path": 7}), CONFIG) == "tiny:1b"


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ({"basename": "Tiny-Coder", "size_label": "3M", "finetune": "Instruct-AWQ"},
         "tiny-coder:3m"),
        ({"basename": "Tiny", "size_label": "3M", "finetune": "Sql", "version": "v2"},
         "tiny-sql-v2:3m"),
        ({"name": "Tiny Coder 3M Instruct"}, "tiny-coder:3m"),
        ({"name": "model", "basename": ""}, f"file:{COUNT}"),
        ({}, f"file:{COUNT}"),
    ],
)  # fmt: skip
def test_titles_of_a_gguf(tmp_path: Path, said: dict[str, str], name: str) -> None:
    path = tmp_path / "File.Q8_0.gguf"

    def extra(writer: gguf.GGUFWriter) -> None:
        for key, value in said.items():
            writer.add_string(f"general.{key}", value)

    gguf_file(path, extra)
    assert derive_name(gguf_titles(path), CONFIG) == name


# In the store


def test_a_directory_is_named_and_said_so(puller: Puller, tmp_path: Path) -> None:
    path = write(tmp_path / "Tiny-Coder-2B")
    manifest = puller(str(path))
    assert manifest.name == "tiny-coder:2b"
    assert puller.store.base("tiny-coder:2b") == manifest
    assert puller.watcher.notes == [
        f"{path} is tiny-coder:2b here; --base-name chooses another name"
    ]


def test_the_same_files_are_the_same_base(puller: Puller, tmp_path: Path) -> None:
    path = write(tmp_path / "first" / "Tiny-2B")
    first = puller(str(path))
    assert puller(str(path)) == first
    assert puller.watcher.notes == [f"{path} is tiny:2b, in the store already"]
    copy = shutil.copytree(path, tmp_path / "Other-3B")
    assert puller(str(copy)) == first
    assert set(puller.store.names()) == {"other:1b", "tiny:2b"}
    shutil.rmtree(path)  # moved: the name goes with it
    moved = puller(str(copy))
    assert (moved.name, moved.source) == ("tiny:2b", f"path:{copy}")
    assert "another base" not in puller.watcher.heard
    assert puller(str(copy), name="other-name:2b").name == "other-name:2b"


def test_a_name_is_not_taken_from_another_base(puller: Puller, tmp_path: Path) -> None:
    first = write(tmp_path / "first" / "Tiny-2B")
    puller(str(first))
    second = write(tmp_path / "second" / "Tiny-2B", seed=1)
    assert puller.fails(UsageError, str(second)) == (
        f"{second} would be tiny:2b, which is taken by path:{first}; "
        "name it with --base-name FAMILY:SIZE"
    )
    assert puller(str(second), name="tiny-second:2b").name == "tiny-second:2b"
    (first / "model.safetensors").write_bytes(checkpoint(2)["model.safetensors"])
    assert "taken by" in puller.fails(UsageError, str(first))


def test_a_name_of_the_catalog_is_for_its_own_files(puller: Puller, tmp_path: Path) -> None:
    path = tmp_path / "tiny-1m.gguf"
    data = gguf_file(path)
    assert puller(str(path)).name == "tiny-own:1m"
    pinned = hub_source(file="t.gguf", sha256=sha256(data), size=len(data))
    again = Puller(puller.hub, Store(tmp_path / "again"))
    manifest = again(str(path), catalog(pinned))
    assert (manifest.name, manifest.prompt.stop_tokens) == (NAME, ("<e>",))
    assert manifest.source == f"path:{path}"


def test_a_repository_is_named(puller: Puller) -> None:
    puller.hub.add_repo("org/Coder-3B-Instruct", checkpoint())
    manifest = puller("hf:org/Coder-3B-Instruct")
    assert (manifest.name, manifest.source) == ("coder:3b", "hub:org/Coder-3B-Instruct")
    asked = len(puller.hub.requests)
    assert puller("hf:org/Coder-3B-Instruct") == manifest
    assert len(puller.hub.requests) == asked
    puller.hub.add_repo("else/Coder-3B", checkpoint(1))
    message = puller.fails(UsageError, "hf:else/Coder-3B")
    assert "would be coder:3b, which is taken by hub:org/Coder-3B-Instruct" in message
    assert len(puller.hub.requests) == asked  # nothing was fetched for that
    puller.hub.add_repo("else/unsized", checkpoint(1))
    assert puller("hf:else/unsized").name == f"unsized:{COUNT}"


def test_a_repository_of_the_catalog_is_its_base(puller: Puller) -> None:
    puller.hub.add_repo(REPO, checkpoint())
    manifest = puller(f"hf:{REPO}")
    assert (manifest.name, manifest.prompt.stop_tokens) == (NAME, ("<e>",))
    assert puller() == manifest
    puller.hub.add_repo("org/tiny-1m", checkpoint(1))
    assert puller("hf:org/tiny-1m").name == "tiny-own:1m"


def test_another_revision_is_another_base(puller: Puller) -> None:
    repo = puller.hub.add_repo("org/Coder-3B", checkpoint())
    puller("hf:org/Coder-3B")
    commit = repo.push(checkpoint(1))
    assert "is taken by" in puller.fails(UsageError, f"hf:org/Coder-3B@{commit}")
