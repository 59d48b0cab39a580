"""`subllm extract` and `subllm add` on a tiny base and a directory of code."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from subllm.cli import losses
from subllm.measuring.evaluation.kept import Kept
from subllm.models.store.manifest import Perplexity
from subllm.models.store.store import Store

from .samples import Ran
from .tiny_store import BASE

Command = Callable[..., Ran]


@pytest.fixture
def extract(code: str, subllm: Command) -> Command:
    options = [
        "--base",
        BASE,
        "--calibration",
        code,
        "calibration.samples=4",
        "calibration.seq_len=64",
    ]
    return lambda *more: subllm("extract", *more, *options)


def test_a_sub_model_is_made_listed_and_asked(
    tiny: Store, code: str, extract: Command, subllm: Command
) -> None:
    ran = extract("python", "--tag", "own")
    name = f"{BASE}-python-own"
    assert ran.status == 0, ran.err
    facts = dict(line.split("  ", 1) for line in ran.out.splitlines())
    assert facts["name"].strip() == name
    assert "shared by all sub-models" in facts["packed"]
    assert "68.8% of the block weights, int4" in facts["density"]
    assert "dense ->" in facts["python perplexity"]
    assert "held-out tokens have the dense base's first choice" in facts["python agreement"]
    said = ran.err.splitlines()
    assert said[0].startswith(f"{name}: wanda, 11:16, int4, head int8; 4 x 64 tokens of ")
    assert said[-1] == f'try it: subllm complete --model {name} "..."'

    manifest = tiny.model(name)
    assert (manifest.method.name, manifest.pattern, manifest.language) == (
        "wanda",
        "11:16",
        "python",
    )
    assert manifest.blobs.shared == tiny.model(f"{BASE}-dense").blobs.shared
    assert name in subllm("list").out
    assert "held-out tokens have the dense base's" in subllm("show", name).out
    assert subllm("verify", name).status == 0
    assert subllm("complete", "def f(", "-m", name, "-n", "3", "--json").json["model"] == name

    again = extract("python", "--tag", "own")
    assert "taken from the store" in again.err
    assert "from the store" in again.out
    other = extract("python", "--tag", "own", "prune.pattern='2:4'")
    assert f"{name} exists (wanda 11:16 int4, head int8) and will be replaced" in other.err
    assert tiny.model(name).pattern == "2:4"


def test_a_head_of_another_type_is_a_shared_blob_of_its_own(
    tiny: Store, extract: Command, subllm: Command
) -> None:
    plain = [extract("python", *tag).status for tag in ([], ["--tag", "again"])]
    small = extract("python", "store.head='int4'", "--tag", "small")
    assert (plain, small.status) == ([0, 0], 0), small.err
    assert "shared by all sub-models of this base with head int4" in small.out
    java = extract("java", "store.head='int4'", "--json").json
    shared = {name: tiny.model(f"{BASE}-{name}").blobs.shared for name in
              ("python", "python-again", "python-small", "java")}  # fmt: skip
    assert shared["python"] == shared["python-again"] != shared["python-small"] == shared["java"]
    assert java["head"] == "int4"
    assert java["shared_bytes"] < tiny.blobs.size(shared["python"])
    assert "int4, head int4" in subllm("show", f"{BASE}-java").out
    assert {m["name"]: m.get("head") for m in subllm("list", "--json").json} == {
        BASE: None,
        f"{BASE}-dense": "int8",
        f"{BASE}-java": "int4",
        f"{BASE}-python": "int8",
        f"{BASE}-python-again": "int8",
        f"{BASE}-python-small": "int4",
    }
    assert subllm("complete", "def f(", "-m", f"{BASE}-java", "-n", "3").status == 0

    replacing = extract("python", "store.head='int4'")
    assert (
        f"{BASE}-python exists (wanda 11:16 int4, head int8) and will be replaced; --tag keeps"
        in (replacing.err)
    )
    assert "taken from the store" in replacing.err
    assert tiny.model(f"{BASE}-python").blobs == tiny.model(f"{BASE}-python-small").blobs


def test_a_method_has_its_parameters(tiny: Store, extract: Command, subllm: Command) -> None:
    ran = extract("python", "prune.method='ria'", "prune.params.a=0.7", "--json")
    assert ran.status == 0, ran.err
    assert (ran.json["method"], ran.json["method_params"]) == ("ria", {"a": 0.7})
    assert f"{BASE}-python: ria a=0.7, 11:16, " in ran.err
    shown = subllm("show", f"{BASE}-python").out
    assert "ria (a 0.7)" in shown
    assert f"threads, blocks in {ran.json['compute']}, peak memory" in " ".join(shown.split())
    assert tiny.model(f"{BASE}-python").method.params == {"a": 0.7}


def test_fast_takes_what_the_machine_does_and_keeps_to_it(
    tiny: Store, code: str, subllm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ["extract", "python", "--base", BASE, "--calibration", code]
    fast = ("prune.method='wanda'", "calibration.fast=true", "recovery.for='off'")

    def slow(*, seconds: float) -> None:
        monkeypatch.setattr("subllm.making.extraction.defaults.FAST_SECONDS", seconds)
        monkeypatch.setattr("subllm.making.extraction.compute.FAST_SECONDS", seconds)

    slow(seconds=0)
    first = subllm(*where, "--fast", "--json")
    assert first.status == 0, first.err
    assert "fast: 16 calibration sequences, the fewest that it takes; samples" in first.err
    assert first.json["calibration"]["samples"] == 16
    slow(seconds=1e9)  # measured again, the machine could do more
    again = subllm(*where, "--fast", "--json")
    assert (again.json["cached"], again.json["digest"]) == (True, first.json["digest"])
    assert "taken from the store" in again.err
    assert "calibration sequences" not in again.err
    given = subllm(*where, *fast, "calibration.samples=4", "--json")
    assert given.json["calibration"]["samples"] == 4
    assert "fast: " not in given.err
    java = subllm("extract", "java", *where[2:], "--fast", "--json")
    assert java.json["calibration"]["samples"] == 32
    assert "fast: 32 calibration sequences, the most that fit" in java.err


def test_json_is_one_document(tiny: Store, extract: Command) -> None:
    ran = extract("Java", "prune.method='magnitude'", "store.values='int4'", "--json")
    assert ran.status == 0, ran.err
    document = ran.json
    assert document["name"] == f"{BASE}-java"
    assert (document["method"], document["values"], document["cached"]) == (
        "magnitude",
        "int4",
        False,
    )
    assert document["density"] == pytest.approx(0.6875)
    assert document["compute"] in ("bfloat16", "float32")
    assert document["calibration"] is None
    assert document["perplexity"]["java"]["after"] > document["perplexity"]["java"]["before"] > 1
    assert document["own_bytes"] == tiny.blobs.size(tiny.model(f"{BASE}-java").blobs.own)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["all", "--name", "a:1b-python"], "--name is for one language"),
        (["python", "--name", "x"], "'x' is not a well-formed name"),
        (["python", "--name", "a:1b"], "'a:1b' names a base, not a model"),
        (["python", "--name", "a:1b-java"], "a:1b-java cannot name a model for python"),
        (["python", "--base", ""], "the base is empty; give a name, hf:org/name"),
        (["python", "--fast", "store.head='int4'"], "--fast is --recipe fast; leave one"),
        (
            ["python", "prune.method='wand'"],
            "1: key 'prune.method': Input should be 'auto', ",
        ),
        (["python", "prune.method='wanda'", "prune.params.a=1"], "wanda takes no parameters"),
        (["python", "prune.method='ria'", "prune.params.b=1"], "ria takes a (power of"),
        (["python", "prune.method='ria'", "prune.params.a=9"], "a number from 0.0 to 4.0"),
        (["python", "prune.params.a=1"], "params belong to a method; say which"),
        (
            ["python", "prune.method='ria'", "prune.params.a='x'"],
            "be a valid number or ",
        ),
        (["python", "--device", "gpu"], "device 'gpu' is unknown; use auto, cpu, cuda"),
        (["python", "prune.pattern='9:16x'"], "9:16x"),
        (["python", "store.values='int3'"], "int3"),
        (
            ["python", "store.head='int3'"],
            "Input should be 'bf16', 'int8' or 'int4'",
        ),
        (["python", "calibration.seq_len=4096"], "seq_len 4096 is longer than the model's context"),
        (["../python"], "is no name of a language"),
        (["dense"], "make it servable with 'subllm add BASE'"),
        (["python", "--calibration", "/no/such/place"], "/no/such/place"),
        (["python", "--base", f"{BASE}-dense"], f"{BASE}-dense is a model, not a base"),
    ],
)
def test_bad_options_are_one_line_and_change_nothing(
    arguments: list[str], message: str, tiny: Store, code: str, subllm: Command
) -> None:
    before = tiny.names()
    options = ["calibration.samples=4"]
    if not any("seq_len" in word for word in arguments):
        options.append("calibration.seq_len=64")
    for name, value in (("--base", BASE), ("--calibration", code)):
        if name not in arguments:
            options += [name, value]
    ran = subllm("extract", *arguments, *options)
    assert (ran.status, ran.out) == (2, "")
    assert message in ran.err.splitlines()[-1]
    assert ran.err.splitlines()[-1].startswith("error: ")
    assert tiny.names() == before


def test_a_base_that_is_not_there_is_fetched_unless_offline(
    tiny: Store, subllm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUBLLM_OFFLINE", "1")
    for command in (["extract", "python", "--base"], ["add"]):
        ran = subllm(*command, "qwen2.5-coder:0.5b")
        assert (ran.status, ran.out) == (3, "")
        assert ran.err.splitlines()[-1].startswith("error: ")


def test_add(tiny: Store, subllm: Command) -> None:
    ran = subllm("add", BASE, "--values", "bf16", "--json")
    assert ran.status == 0, ran.err
    document = ran.json
    assert (document["name"], document["values"]) == (f"{BASE}-dense", "bf16")
    assert document["cached"] is False
    assert document["own_bytes"] > 0
    assert subllm("add", BASE, "--values", "bf16", "--json").json["cached"] is True
    assert subllm("add", BASE).status == 0
    lines = subllm("add", BASE).out.splitlines()
    assert lines[0].split() == ["name", f"{BASE}-dense"]
    assert lines[-1].split(maxsplit=1) == ["time", "from the store"]
    for option in ("--values", "--head"):
        refused = subllm("add", BASE, option, "int3")
        assert (refused.status, refused.out) == (2, "")
        assert "value type 'int3' is unknown" in refused.err
    refused = subllm("add", BASE, "--values", "nf4")
    assert (refused.status, refused.out) == (2, "")
    assert "rounded to it on load; add it as bf16 or int8, or as int4" in refused.err
    assert json.loads(subllm("list", "--json").out)


def test_add_with_another_head(tiny: Store, subllm: Command) -> None:
    name = f"{BASE}-dense"
    first = tiny.model(name)
    beside = subllm("add", BASE, "--values", "int8", "--head", "int4", "--tag", "small", "--json")
    assert (beside.status, beside.err.count("replaced")) == (0, 0)
    assert (beside.json["name"], beside.json["head"]) == (f"{name}-small", "int4")
    small = tiny.model(f"{name}-small")
    assert (small.tag, tiny.model(name)) == ("small", first)
    assert small.blobs.own == first.blobs.own
    assert small.blobs.shared != first.blobs.shared

    again = subllm("add", BASE, "--values", "int8", "--head", "int4")
    assert f"{name} exists (int8, head int8) and will be replaced; --tag keeps both" in again.err
    assert again.out.splitlines()[2].split(maxsplit=1) == ["values", "int8, head int4"]
    assert (tiny.model(name).name, tiny.model(name).tag) == (name, "")
    assert tiny.model(name).blobs == small.blobs
    assert "replaced" not in subllm("add", BASE, "--values", "int8", "--head", "int4").err


@pytest.mark.parametrize(
    ("before", "after", "word"),
    [(2.0, 2.05, "slight"), (2.0, 2.14, "noticeable"), (2.0, 2.3, "heavy"), (2.0, 4.0, "severe")],
)
def test_loss_in_a_word(before: float, after: float, word: str) -> None:
    assert losses.loss_word(before, after).startswith(word)


def kept(solved: int, dense: int | None) -> Kept:
    return Kept("python", 40, solved, None if dense is None else f"{BASE}-dense", dense, "records")


@pytest.mark.parametrize(
    ("solved", "dense", "word"),
    [
        (20, 20, "slight loss"),
        (24, 20, "slight loss"),
        (18, 22, "noticeable loss"),
        (10, 20, "heavy loss"),
        (9, 20, "severe loss: expect broken code"),
        (0, 8, "severe loss: expect broken code"),
        (1, 7, ""),  # too few to tell
        (3, 0, ""),
        (18, None, ""),
    ],
)
def test_loss_in_a_word_by_problems_solved(solved: int, dense: int | None, word: str) -> None:
    assert losses.kept_word(kept(solved, dense)) == word


def test_the_word_for_the_language_is_by_problems_where_they_tell(tiny: Store) -> None:
    bad = {
        d: Perplexity(before=2.0, after=4.0, tokens=9, agreement=0.5) for d in ("python", "java")
    }
    manifest = tiny.model(f"{BASE}-python").model_copy(update={"perplexity": bad})
    rows = dict(losses.perplexity_rows(manifest, kept(18, 22)))
    assert rows["python perplexity"] == "2.000 dense -> 4.000"
    assert rows["java perplexity"].endswith("(severe loss: expect broken code)")
    assert losses.problem_rows(manifest, kept(18, 22)) == [
        ("python problems", "18 of 40 solved, dense 22 (82 % kept): noticeable loss")
    ]
    for told in (None, kept(18, None), kept(1, 7)):
        rows = dict(losses.perplexity_rows(manifest, told))
        assert rows["python perplexity"].endswith("(severe loss: expect broken code)")
    ((_, alone),) = losses.problem_rows(manifest, kept(18, None))
    assert alone.startswith("18 of 40 solved; ") and f"'subllm add {BASE}'" in alone
    ((_, few),) = losses.problem_rows(manifest, kept(3, 0))
    assert few == "3 of 40 solved, dense 0"
