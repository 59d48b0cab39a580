"""`subllm cp`: a second name."""

from __future__ import annotations

from collections.abc import Callable

from subllm.models.store.sizes import sizes_of
from subllm.models.store.store import Store

from .samples import BASE, Ran

Command = Callable[..., Ran]
PYTHON = f"{BASE}-python"


def test_a_second_name_shares_everything(store: Store, subllm: Command) -> None:
    ran = subllm("cp", PYTHON, f"{PYTHON}-before")
    assert (ran.status, ran.out) == (0, f"{PYTHON}-before is what {PYTHON} is\n")
    first, second = store.model(PYTHON), store.model(f"{PYTHON}-before")
    assert (second.name, second.tag, second.blobs) == (f"{PYTHON}-before", "before", first.blobs)
    assert sizes_of(store, f"{PYTHON}-before").own == 0
    record = store.run_record(store.resolve(f"{PYTHON}-before"))
    assert record == store.run_record(store.resolve(PYTHON))
    assert subllm("verify", f"{PYTHON}-before").status in (0, 4)  # the sample's bytes are none

    # The first goes, the second stays whole.
    assert subllm("rm", PYTHON, "--yes").status == 0
    assert subllm("show", f"{PYTHON}-before").status == 0
    assert sizes_of(store, f"{PYTHON}-before").missing == 0


def test_the_tag_alone_names_it(store: Store, subllm: Command) -> None:
    document = subllm("cp", PYTHON, "old", "--json").json
    assert document["name"] == f"{PYTHON}-old"
    assert document["digest"] == store.resolve(f"{PYTHON}-old")
    assert document["before"] is None


def test_what_is_refused(store: Store, subllm: Command) -> None:
    for source, target, word in (
        (PYTHON, f"{BASE}-java-x", "only the tag may differ"),
        (PYTHON, "other:1m-python-x", "only the tag may differ"),
        (PYTHON, f"{BASE}-java", "choose another name"),
        (PYTHON, PYTHON, "choose another name"),
        (PYTHON, "../x", "well-formed"),
        (BASE, f"{BASE}-x", "is a base"),
        (f"{BASE}-ruby", "x", "unknown model"),
    ):
        ran = subllm("cp", source, target)
        assert (ran.status, ran.out) == (2, ""), (source, target)
        assert word in ran.err
        assert ran.err.count("\n") == 1
    assert subllm("cp", PYTHON, PYTHON, "--replace").status == 2


def test_replace(store: Store, subllm: Command) -> None:
    subllm("cp", PYTHON, "x")
    before = store.resolve(f"{PYTHON}-x")
    assert subllm("cp", PYTHON, "x", "--replace", "--json").json["before"] == before
