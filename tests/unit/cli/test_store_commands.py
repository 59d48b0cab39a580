"""`list show rm gc verify` on a small store."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from subllm.models.catalog.prompt import PromptSpec
from subllm.models.store.store import Store

from .samples import BASE, Ran

Command = Callable[..., Ran]


def test_list_fits_80_columns_and_tells_sizes_and_loss(store: Store, subllm: Command) -> None:
    ran = subllm("list")
    assert ran.status == 0
    lines = ran.out.splitlines()
    assert [line.split()[0] for line in lines] == ["NAME", BASE, f"{BASE}-java", f"{BASE}-python"]
    assert lines[1].split()[1:] == ["base", "gguf", "3.0", "MB"]
    assert lines[3].split()[1:] == ["8:16", "int8", "1.2", "MB", "2.0", "MB", "+10.0%"]
    assert max(map(len, lines)) <= 80


def test_list_json(store: Store, subllm: Command) -> None:
    ran = subllm("list", "--json")
    java = ran.json[1]
    assert java["name"] == f"{BASE}-java"
    assert (java["kind"], java["base"], java["language"]) == ("model", BASE, "java")
    assert java["shared_bytes"] == 2_001_000
    assert java["shared_with"] == [f"{BASE}-python"]
    measured = java["perplexity"]["java"]
    assert (measured["before"], measured["after"], measured["tokens"]) == (2.5, 2.75, 4096)
    assert ran.err == ""


def test_list_of_an_empty_store_says_how_to_start(subllm: Command) -> None:
    ran = subllm("list")
    assert (ran.status, ran.out) == (0, "")
    assert "subllm pull" in ran.err
    assert subllm("list", "--json").json == []


def test_list_shows_damage_and_goes_on(store: Store, subllm: Command) -> None:
    path = store.manifest_path(store.resolve(f"{BASE}-java"))
    path.chmod(0o644)
    path.write_text("{}")
    ran = subllm("list")
    assert ran.status == 0
    assert "damaged" in ran.out.splitlines()[2]
    assert f"{BASE}-python" in ran.out


def test_list_catalog(subllm: Command) -> None:
    ran = subllm("list", "--catalog")
    row = next(line for line in ran.out.splitlines() if line.startswith("qwen2.5-coder:0.5b"))
    assert row.split()[1:] == ["988.1", "MB", "8k", "of", "32k", "yes", "Apache-2.0"]
    assert ran.out.splitlines()[2].split() == ["or", "491.4", "MB"]
    assert max(map(len, map(str.rstrip, ran.out.splitlines()))) <= 80
    entries = {entry["name"]: entry for entry in subllm("list", "--catalog", "--json").json}
    assert "starcoder2:3b" in entries
    entry = entries["qwen2.5-coder:0.5b"]
    assert (entry["context_length"], entry["max_context_length"]) == (8192, 32768)
    assert list(entry["downloads"].values()) == [988_065_536, 491_400_064, 491_400_064]


def test_help_says_of_the_first_pull_what_the_catalog_does(subllm: Command) -> None:
    (entry,) = (e for e in subllm("list", "--catalog", "--json").json if "coder:0.5b" in e["name"])
    least, most = min(entry["downloads"].values()) / 1e9, max(entry["downloads"].values()) / 1e9
    assert f"fetch a base model ({least:.1g} or {most:.1g} GB)" in subllm("--help").out


def test_one_length_of_context(
    store: Store, subllm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is served: the model's maximum, the default or the setting, whatever is least."""

    def shown(name: str) -> str:
        lines = subllm("show", name).out.splitlines()
        return next(line for line in lines if line.startswith("context")).split(maxsplit=1)[1]

    for name in (BASE, f"{BASE}-python"):
        assert shown(name) == "4,096 tokens"
        assert subllm("show", name, "--json").json["context_length"] == 4096
    longer = store.base(BASE).model_copy(
        update={"prompt": PromptSpec(context_length=32768), "name": "long:1m"}
    )
    store.set_ref("long:1m", store.put_manifest(longer))
    more = "(model's maximum 32,768; --context-length of 'serve')"
    assert shown("long:1m") == f"8,192 tokens {more}"
    assert "Default: 8192, or less where" in " ".join(subllm("serve", "--help").out.split())
    monkeypatch.setenv("SUBLLM_CONTEXT_LENGTH", "20000")
    assert shown("long:1m") == f"20,000 tokens {more}"
    assert shown(BASE) == "4,096 tokens"
    assert "20,000 of 32k" in subllm("list", "--catalog").out


def test_show_model(store: Store, subllm: Command) -> None:
    ran = subllm("show", f"{BASE}-python")
    facts = dict(line.split("  ", 1) for line in ran.out.splitlines())
    facts = {name: value.strip() for name, value in facts.items()}
    assert facts["kind"] == "sub-model"
    assert facts["pattern"] == "8:16, 50.0% of the block weights kept"
    assert facts["method"] == "wanda (norm l2)"
    assert facts["perplexity, python"] == "2.500 dense, 2.750 now (+10.0% on 4,096 tokens)"
    assert facts["shared size"] == f"2.0 MB with {BASE}-java"
    assert facts["made"].startswith("2026-01-02T03:04:05Z in 1 min 35 s on 2 threads")


def test_show_base_and_licence(store: Store, subllm: Command) -> None:
    assert "base (gguf, 1 file)" in subllm("show", BASE).out
    assert subllm("show", f"{BASE}-java", "--licence").out == "Do as you like.\n"


def test_show_json(store: Store, subllm: Command) -> None:
    document = subllm("show", f"{BASE}-python", "--json").json
    assert document["digest"] == store.resolve(f"{BASE}-python")
    assert document["manifest"]["pattern"] == "8:16"
    assert document["run"]["threads"] == 2


def test_unknown_name_has_the_nearest(store: Store, subllm: Command) -> None:
    ran = subllm("show", f"{BASE}-pyton")
    assert ran.status == 2
    assert f"did you mean {BASE}-python" in ran.err


def test_rm_frees_its_own_and_keeps_what_is_shared(store: Store, subllm: Command) -> None:
    ran = subllm("rm", f"{BASE}-java", "--yes")
    assert ran.status == 0
    assert ran.out.startswith(f"removed {BASE}-java, freed ")
    assert f"2.0 MB stay for {BASE}-python" in ran.out
    assert set(store.names()) == {BASE, f"{BASE}-python"}


def test_rm_names_a_few_of_those_that_need_the_rest(store: Store, subllm: Command) -> None:
    for number in range(6):
        assert subllm("cp", f"{BASE}-python", f"t{number}").status == 0
    ran = subllm("rm", f"{BASE}-java", "--yes")
    users = f"{BASE}-python, {BASE}-python-t0, {BASE}-python-t1 and 4 others"
    assert f"2.0 MB stay for {users}\n" in ran.out


def test_rm_removes_nothing_without_yes_or_with_a_typing_error(
    store: Store, subllm: Command
) -> None:
    assert subllm("rm", BASE).status == 2
    assert subllm("rm", BASE, "nothing:1b", "--yes").status == 2
    assert BASE in store.names()


def test_gc_tells_before_it_frees(store: Store, subllm: Command) -> None:
    with store.writing():
        orphan = store.blobs.put(b"x" * 5_000_000)
    assert "would free 5.0 MB (1 blob)" in subllm("gc", "--dry-run").out
    assert store.blobs.has(orphan)
    assert subllm("gc", "--json").json["freed"] == 5_000_000
    assert not store.blobs.has(orphan)


def test_verify_names_the_damaged(store: Store, subllm: Command) -> None:
    ran = subllm("verify", BASE)
    assert (ran.status, ran.out) == (0, f"{BASE}  ok\n")
    manifest = store.base(BASE)
    path = store.blobs.path(manifest.files[0].digest)
    path.chmod(0o644)
    path.write_bytes(b"v" * 3_000_000)
    ran = subllm("verify", BASE)
    assert ran.status == 4
    assert f"{BASE}  DAMAGED" in ran.out
    assert "  -> " in ran.out
    assert ran.err == f"error: 1 of 1 are damaged: {BASE}\n"
    assert subllm("verify", BASE, "--json").json[0]["ok"] is False
