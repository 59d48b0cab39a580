"""`subllm outdated` and `subllm update`."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.hub import FakeHub

from subllm.cli import update_job
from subllm.making.extraction import made
from subllm.models.store.manifest import (
    Likeness,
    PulledFrom,
    RecoveryRecord,
    TuningRecord,
    sha256_of,
)
from subllm.models.store.store import Store

from .samples import HUB_FILES, Ran
from .test_pull import failed
from .tiny_store import BASE

Command = Callable[..., Ran]
OWN = f"{BASE}-python-own"


@pytest.fixture
def mine(code: str, tmp_path: Path) -> Path:
    """Code that a test may change."""
    shutil.copytree(code, tmp_path / "mine")
    return tmp_path / "mine"


@pytest.fixture
def extracted(tiny: Store, mine: Path, subllm: Command, monkeypatch: pytest.MonkeyPatch) -> str:
    """A sub-model of that code, asked for from its parent's directory."""
    monkeypatch.chdir(mine.parent)
    options = [
        "--calibration",
        "mine",
        "calibration.samples=4",
        "calibration.seq_len=64",
        "--tag",
        "own",
    ]
    ran = subllm("extract", "python", "--base", BASE, *options, "--recover", "off")
    assert ran.status == 0, ran.err
    return OWN


def rewrite(mine: Path) -> None:
    """Every Python file, as few of them are calibrated with."""
    for path in mine.glob("*.py"):
        path.write_text(path.read_text().replace("return value", "return not value"))


def found(ran: Ran) -> dict[str, dict[str, Any]]:
    assert ran.status == 0, ran.err
    return {one["name"]: one for one in ran.json["outdated"]}


def test_what_was_asked_for_is_kept(
    extracted: str, tiny: Store, mine: Path, subllm: Command
) -> None:
    record = tiny.run_record(tiny.resolve(extracted))
    assert record is not None and record.made is not None
    arguments = list(record.made.arguments)
    assert arguments[:4] == ["extract", "python", "--base", BASE]
    assert arguments[arguments.index("--calibration") + 1] == str(mine)
    for option, value in (("--tag", "own"), ("--recover", "off")):
        assert arguments[arguments.index(option) + 1] == value
    assert "--recipe" not in arguments  # a file that may be gone by then
    assert record.made.said == {
        "calibration": {"samples": 4, "seq_len": 64},
        "recovery": {"for": "off"},
    }
    assert record.made.recipe["store"]["head"] == "int8"
    assert set(record.made.texts) == {f"path:{mine}"}
    assert found(subllm("outdated", "--json")) == {}
    ran = subllm("outdated")
    assert ran.out == "up to date\n"
    assert "it is not known how they were asked" in ran.err


def test_own_code_that_changed_is_learned_again(
    extracted: str, tiny: Store, mine: Path, subllm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tiny.resolve(extracted)
    (mine / "notes.txt").write_text("not code")
    (mine / "Class0.java").write_text("class Other {}" * 20)
    assert found(subllm("outdated", "--json")) == {}
    rewrite(mine)
    one = found(subllm("outdated", extracted, "--json"))[extracted]
    assert one["why"] == [f"path:{mine} changed (48 files)"]
    assert one["command"].startswith(f"subllm extract python --base {BASE} ")
    assert one["seconds"] > 0
    assert extracted in subllm("outdated").out
    assert tiny.resolve(extracted) == before  # never without being asked
    monkeypatch.chdir("/")
    ran = subllm("update", extracted)
    assert ran.status == 0, ran.err
    assert ran.out.endswith(f"updated: {extracted}\n")
    assert tiny.resolve(extracted) != before
    assert tiny.manifest(before)  # until gc
    assert found(subllm("outdated", "--json")) == {}
    assert update_job.find(tiny.root) is None
    shutil.rmtree(mine)
    one = found(subllm("outdated", "--json"))[extracted]
    assert (one["why"], one["command"]) == ([f"path:{mine} is gone"], None)


def test_what_subllm_chooses_otherwise(
    extracted: str, tiny: Store, subllm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(made, "DEFAULT_PATTERN", "10:16")
    monkeypatch.setattr(made, "DEFAULT_SAMPLES", 8)  # which the user chose
    one = found(subllm("outdated", "--json"))[extracted]
    assert one["why"] == ["how many weights are kept (11:16 -> 10:16)"]
    out = subllm("outdated").out
    assert max(map(len, out.splitlines())) <= 80
    # Asked for again, what comes out is today's, whether or not the plan was there already.
    record = tiny.run_record(tiny.resolve(extracted))
    assert record is not None and record.made is not None
    assert subllm(*made.again(record.made, extracted)).status == 0
    assert found(subllm("outdated", "--json")) == {}


def test_an_update_takes_the_recipe_along(
    extracted: str, tiny: Store, mine: Path, subllm: Command
) -> None:
    rewrite(mine)
    one = found(subllm("outdated", extracted, "--json"))[extracted]
    assert one["command"].endswith(f" --recipe of:{extracted}")
    ran = subllm("update", extracted)
    assert ran.status == 0, ran.err
    calibration = tiny.model(extracted).calibration
    assert calibration is not None and (calibration.samples, calibration.seq_len) == (4, 64)
    shown = subllm("show", extracted).out
    assert "[calibration]\nsamples = 4\nseq_len = 64\n" in shown
    assert '[recovery]\nfor = "off"' in shown
    whole = subllm("recipe", "show", f"of:{extracted}", "--json").json
    assert (whole["calibration"]["samples"], whole["store"]["head"]) == (4, "int8")


def test_what_a_store_of_before_says_is_a_recipe(
    extracted: str, tiny: Store, mine: Path, subllm: Command
) -> None:
    """Options that were, in records that had no recipe."""
    digest = tiny.resolve(extracted)
    record = tiny.run_record(digest)
    assert record is not None and record.made is not None
    options = ("--samples", "4", "--seq-len", "64", "--head", "int4", "--no-keep-state")
    old = record.made.model_copy(
        update={"arguments": (*record.made.arguments, *options), "recipe": {}, "said": {}}
    )
    tiny.put_run_record(digest, record.model_copy(update={"made": old}))
    assert found(subllm("outdated", "--json")) == {}
    assert '[store]\nvalues = "int4"\nhead = "int4"\nkeep_state = false' in (
        subllm("show", extracted).out
    )
    rewrite(mine)
    one = found(subllm("outdated", "--json"))[extracted]
    assert "--head" not in one["command"] and one["command"].endswith(f" --recipe of:{extracted}")
    ran = subllm("update", extracted)
    assert ran.status == 0, ran.err
    made_again = tiny.model(extracted)
    assert made_again.head == "int4" and made_again.calibration is not None
    assert made_again.calibration.samples == 4
    wrong = old.model_copy(update={"arguments": (*old.arguments, "--pattern", "9:16x")})
    digest = tiny.resolve(extracted)
    tiny.put_run_record(digest, record.model_copy(update={"made": wrong}))
    one = found(subllm("outdated", "--json"))[extracted]
    assert one["command"] is None and "its recipe is none any more" in one["why"]
    assert subllm("show", extracted).status == 0


def test_a_copy_stays_what_it_was(extracted: str, mine: Path, subllm: Command) -> None:
    assert subllm("cp", extracted, "before").status == 0
    rewrite(mine)
    assert list(found(subllm("outdated", "--json"))) == [extracted]


def test_what_was_recovered_further_is_not_lost_by_the_way(
    extracted: str, tiny: Store, mine: Path, subllm: Command
) -> None:
    """As `recover` leaves it: a new manifest with the old one's sidecar."""
    like = Likeness(agreement=0.5, kl=1.0)
    learned = RecoveryRecord(
        recipe={}, tokens=2048, source="pack:python", text=sha256_of(b""), heldout=sha256_of(b""),
        before=like, after=like,
    )  # fmt: skip
    record = tiny.run_record(tiny.resolve(extracted))
    assert record is not None
    digest = tiny.put_manifest(tiny.model(extracted).model_copy(update={"recovery": learned}))
    tiny.put_run_record(digest, record)
    tiny.set_ref(extracted, digest)
    rewrite(mine)
    why = found(subllm("outdated", "--json"))[extracted]["why"]
    assert why[-1] == "recovered further since, which is not made again"
    assert subllm("update", "--all", "--json").json["updated"] == []
    assert tiny.resolve(extracted) == digest


def test_a_tuned_model_says_when_its_text_changed(
    extracted: str, tiny: Store, mine: Path, subllm: Command
) -> None:
    """As `tune` leaves it; it keeps its name, so what is to be done is only told."""
    like, origin = Likeness(agreement=0.5, kl=1.0, nll=1.0), tiny.resolve(extracted)
    tuning = TuningRecord(
        origin=extracted, manifest=origin, recipe={}, tokens=2048, source=f"path:{mine}",
        text=sha256_of(b""), heldout=sha256_of(b""), before=like, after=like,
    )  # fmt: skip
    name = f"{extracted}-tuned"
    update = {"name": name, "tag": "own-tuned", "tunings": (tuning,)}
    digest = tiny.put_manifest(tiny.model(extracted).model_copy(update=update))
    record = tiny.run_record(origin)
    assert record is not None
    told = made.tuned_by(extracted, str(mine), "1h", name, "python")
    tiny.put_run_record(digest, record.model_copy(update={"made": told}))
    tiny.set_ref(name, digest)
    assert found(subllm("outdated", name, "--json")) == {}
    rewrite(mine)
    one = found(subllm("outdated", name, "--json"))[name]
    assert one["why"][0] == f"path:{mine} changed (48 files)"
    assert "under another --name" in one["why"][1]
    assert one["command"] is None
    assert "by hand" in subllm("outdated").out
    other = tiny.put_manifest(tiny.model(extracted).model_copy(update={"density": 0.1}))
    tiny.set_ref(extracted, other)
    one = found(subllm("outdated", name, "--json"))[name]
    assert f"{extracted}, which it was tuned from, is another one now" in one["why"]


def test_a_base_whose_repository_moved(
    subllm: Command, store: Store, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)  # of the processes that fetch
    monkeypatch.setenv("HF_HUB_CACHE", str(store.root.parent / "hf" / "hub"))
    repo = hub.repos["model", "org/tiny"]
    first = repo.commit
    assert subllm("pull", "tiny:1m").status == 0
    assert subllm("pull", "hf:org/tiny", "--name", "own:1m").status == 0
    assert subllm("pull", f"hf:org/tiny@{first}", "--name", "pinned:1m").status == 0
    asked = len(hub.requests)
    assert found(subllm("outdated", "--json")) == {}
    assert len(hub.requests) - asked == 2  # one each; a commit does not move
    second = repo.push(HUB_FILES | {"model.safetensors": b"v" * 1000})
    moved = found(subllm("outdated", "--json"))
    assert list(moved) == ["own:1m", "tiny:1m"]
    why = f"org/tiny moved ({first[:8]} -> {second[:8]})"
    assert [one["why"] for one in moved.values()] == [[why], [why]]
    document = subllm("update", "tiny:1m", "--json").json
    assert (document["updated"], document["failed"]) == (["tiny:1m"], [])
    assert store.base("tiny:1m").revision == second
    assert [store.base(name).revision for name in ("own:1m", "pinned:1m")] == [first, first]
    assert list(found(subllm("outdated", "--json"))) == ["own:1m"]


def test_models_of_a_base_that_moved(
    extracted: str, tiny: Store, subllm: Command, hub: FakeHub
) -> None:
    base = tiny.base(BASE).model_copy(update={"source": "hub:org/tiny", "revision": "a" * 40})
    tiny.set_ref(BASE, tiny.put_manifest(base))
    findings = found(subllm("outdated", extracted, "--json"))
    assert list(findings) == [BASE, extracted]  # the base first
    assert findings[extracted]["why"] == [f"its base {BASE} moved"]
    hub.repos["model", "org/tiny"].branches["main"] = "a" * 40
    hub.repos["model", "org/tiny"].commits["a" * 40] = HUB_FILES
    findings = found(subllm("outdated", extracted, "--json"))
    assert findings[extracted]["why"] == [f"{BASE} is another base now"]


def test_without_a_network(
    subllm: Command, store: Store, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert subllm("pull", "tiny:1m").status == 0
    assert subllm("pull", "hf:org/tiny", "--name", "own:1m").status == 0
    monkeypatch.setenv("SUBLLM_HUB_PROBE_SECONDS", "0.3")
    hub.silent = True
    asked = len(hub.requests)
    ran = subllm("outdated")
    assert (ran.status, ran.out) == (0, "up to date as far as it is known here\n")
    assert "not asked: " in ran.err and "did not answer within 0.3 s" in ran.err
    assert len(hub.requests) == asked + 1  # the second would not be answered either
    monkeypatch.setenv("SUBLLM_OFFLINE", "1")
    assert subllm("outdated", "--json").json["not_asked"] == [
        "SUBLLM_OFFLINE is set, the hub was not asked"
    ]
    assert len(hub.requests) == asked + 1


def test_models_that_were_pulled(
    subllm: Command, tiny: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, name = str(tmp_path / "team"), f"{BASE}-python"
    assert subllm("push", name, place).status == 0
    giver = tiny.root
    monkeypatch.setenv("SUBLLM_HOME", str(tmp_path / "taker"))
    theirs = f"{name}-theirs"
    assert subllm("pull", place, "--name", theirs).status == 0
    taker = Store(tmp_path / "taker")
    record = taker.run_record(taker.resolve(theirs))
    assert record is not None
    assert record.pulled == PulledFrom(source=f"path:{place}", name=name)
    assert found(subllm("outdated", "--json")) == {}
    monkeypatch.setenv("SUBLLM_HOME", str(giver))
    model = tiny.model(f"{BASE}-dense")
    blobs = model.blobs.model_copy(update={"own": model.blobs.shared})
    other = tiny.model(name).model_copy(update={"blobs": blobs})
    tiny.set_ref(name, tiny.put_manifest(other))
    assert subllm("push", name, place).status == 0
    monkeypatch.setenv("SUBLLM_HOME", str(tmp_path / "taker"))
    one = found(subllm("outdated", "--json"))[theirs]
    assert one["why"] == [f"{place} has another one now"]
    assert one["command"] == f"subllm pull {place} --only {name} --name {theirs} --replace"


@pytest.mark.long
def test_in_the_background(extracted: str, tiny: Store, mine: Path, subllm: Command) -> None:
    rewrite(mine)
    before = tiny.resolve(extracted)
    ran = subllm("update", "--all", "--background", "--json")
    assert ran.status == 0, ran.err
    log = Path(ran.json["log"])
    job = update_job.find(tiny.root)
    if job is not None:  # it may have ended by now
        assert job.pid == ran.json["pid"]
        assert "for all, pid" in subllm("update", "--status").out
        assert "an update runs already" in failed(subllm("update", "--all"), 4)
        ended = subllm("update", "--stop")
        assert ended.status in (0, 4), ended.err
    assert update_job.find(tiny.root) is None
    assert subllm("update", "--status", "--json").json["running"] is None
    assert log.exists()
    assert subllm("update", "--all").status == 0  # goes on, or finds it done
    assert tiny.resolve(extracted) != before
    assert "no update runs" in failed(subllm("update", "--stop"), 4)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_step_that_fails_is_told_and_others_go_on(
    extracted: str, tiny: Store, mine: Path, subllm: Command
) -> None:
    digest = tiny.resolve(extracted)
    record = tiny.run_record(digest)
    assert record is not None and record.made is not None
    wrong = record.made.model_copy(update={"arguments": (*record.made.arguments, "--nonsense")})
    tiny.put_run_record(digest, record.model_copy(update={"made": wrong}))
    rewrite(mine)
    ran = subllm("update", "--all", "--json")
    assert ran.status == 4
    assert json.loads(ran.out)["failed"] == [extracted]
    assert f"not updated: {extracted}" in ran.err
    assert tiny.resolve(extracted) == digest


def test_what_is_asked_for_must_be_said(subllm: Command, tiny: Store) -> None:
    for arguments in ([], ["--all", "--status"], [BASE, "--all"], ["--status", "--background"]):
        assert subllm("update", *arguments).status == 2
    assert "unknown" in failed(subllm("update", f"{BASE}-gone"), 2)
    assert "unknown" in failed(subllm("outdated", f"{BASE}-gone"), 2)
