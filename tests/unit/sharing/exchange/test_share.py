"""Models from one store to another, by a hub, a directory and a file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fakes.hub import FakeHub

from subllm.engine.computing import Computing
from subllm.engine.loader import load_engine
from subllm.engine.request import Request, SamplingParams
from subllm.errors import AcquireError, SharedModelsError, UnknownNameError, UsageError
from subllm.models.acquire.pull import pull
from subllm.models.acquire.reach import Reach
from subllm.models.acquire.share.index import CARD, LICENCE
from subllm.models.catalog.loader import Catalog
from subllm.models.store.collect import gc
from subllm.models.store.manifest import (
    CalibrationRecord,
    RunRecord,
    blob_digests,
    sha256_of,
)
from subllm.models.store.store import Store
from subllm.models.store.verify import verify
from unit.cli.tiny_store import BASE, greedy

from .samples import DENSE, JAVA, KINDS, PYTHON, change_model, give, place_of, refused, take

RUN = RunRecord(
    created="2026-01-02T03:04:05Z", seconds=2.5, peak_memory_bytes=1, host="anns-pc", threads=2
)
pytestmark = pytest.mark.usefixtures("hub")
both = pytest.mark.parametrize("kind", KINDS)


def text_of(store: Store, name: str) -> str:
    engine = load_engine(store, name, computing=Computing(threads=1))
    try:
        engine.add(Request("r", (40, 41, 42), SamplingParams(max_tokens=12, temperature=0.0)))
        text = ""
        while engine.has_work():
            text += "".join(event.text for event in engine.step())
        return text
    finally:
        engine.close()


@both
def test_a_model_answers_the_same_where_its_base_is_not(
    giver: Store, taker: Store, tmp_path: Path, kind: str
) -> None:
    where = place_of(kind, tmp_path)
    sent, watcher = give(giver, where)
    size = sum(map(giver.blobs.size, blob_digests(giver.model(PYTHON))))
    assert (sent.sent, sent.present) == (size, 0)
    watcher.assert_complete()
    report, watcher = take(taker, where)
    assert (report.came, report.present) == (size, 0)
    watcher.assert_complete()
    assert list(taker.names()) == [PYTHON]
    assert text_of(taker, PYTHON) == text_of(giver, PYTHON) != ""
    assert greedy(giver, (40, 41, 42), 12) == text_of(taker, PYTHON)
    (result,) = verify(taker)
    assert not result.problems
    assert gc(taker).freed == 0
    assert not list(taker.workspace.partials.iterdir())
    record = taker.run_record(taker.resolve(PYTHON))
    assert record is not None and record.pulled is not None
    assert record.pulled.source == report.source
    assert len(record.pulled.revision) == (40 if kind == "hub" else 0)


@both
def test_what_is_there_moves_neither_way(
    giver: Store, taker: Store, hub: FakeHub, tmp_path: Path, kind: str
) -> None:
    """The models of the tiny store have all blobs in common."""
    where = place_of(kind, tmp_path)
    size = give(giver, where)[0].sent
    take(taker, where)
    anew = kind == "team.subllm"  # a file is written as a whole
    sent, _ = give(giver, where, *([PYTHON] if anew else []), JAVA)
    assert (sent.sent, sent.present) == ((size, 0) if anew else (0, size))
    asked = len(hub.requests)
    report, watcher = take(taker, where)
    assert (report.came, report.present) == (0, size)
    assert watcher.tasks == {}
    assert [note.partition(": ")[0] for note in watcher.notes] == [JAVA]  # the other was checked
    assert not any("/blobs/" in request.path for request in hub.requests[asked:])
    assert list(taker.names()) == [JAVA, PYTHON]
    assert [model.before for model in report.models] == [None, None]


@both
def test_one_of_several_and_another_name(
    giver: Store, taker: Store, tmp_path: Path, kind: str
) -> None:
    where = place_of(kind, tmp_path)
    give(giver, where, PYTHON, JAVA)
    theirs = f"{BASE}-java-theirs"
    assert f"{JAVA}, {PYTHON}" in refused(taker, where, UsageError, name=theirs)
    assert "did you mean" in refused(taker, where, UnknownNameError, only=[f"{BASE}-jova"])
    message = refused(taker, where, UsageError, only=[JAVA], name=PYTHON)
    assert "language" in message
    take(taker, where, only=[JAVA], name=theirs)
    model = taker.model(theirs)
    assert (model.name, model.tag, list(taker.names())) == (theirs, "theirs", [theirs])


def test_a_name_stays_with_the_model_that_has_it(
    giver: Store, taker: Store, tmp_path: Path
) -> None:
    where = place_of("directory", tmp_path)
    give(giver, where, DENSE, PYTHON)
    take(taker, where, only=[DENSE])
    dense = taker.model(DENSE)
    blobs = dense.blobs.model_copy(update={"own": taker.blobs.put(b"another")})
    other = dense.model_copy(update={"name": PYTHON, "language": "python", "blobs": blobs})
    taker.set_ref(PYTHON, taker.put_manifest(other))
    message = refused(taker, where, UsageError)
    assert f"--name {PYTHON}-theirs" in message and "--replace" in message
    report, _ = take(taker, where, replace=True)
    assert {model.name: bool(model.before) for model in report.models} == {
        DENSE: False,
        PYTHON: True,
    }


def test_a_newer_one_from_the_same_place_takes_its_name(
    giver: Store, taker: Store, tmp_path: Path
) -> None:
    where = place_of("directory", tmp_path)
    give(giver, where)
    take(taker, where)
    before = taker.resolve(PYTHON)
    change_model(giver, PYTHON, density=0.25)
    give(giver, where)
    report, _ = take(taker, where)
    assert report.models[0].before == before
    assert taker.model(PYTHON).density == 0.25
    assert len(list((tmp_path / "directory" / "manifests").iterdir())) == 1


def test_the_base_of_this_store_is_the_models(giver: Store, taker: Store, tmp_path: Path) -> None:
    """Its manifest differs from store to store by the paths in it."""
    where = place_of("directory", tmp_path)
    give(giver, where)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(Path(giver.base(BASE).files[0].local_path or "").parent, elsewhere)
    pull(str(elsewhere), taker, Catalog({}, {}), name=BASE)
    take(taker, where)
    assert taker.resolve(BASE) != giver.resolve(BASE)
    assert taker.model(PYTHON).base.manifest == taker.resolve(BASE)


@both
def test_paths_and_host_stay_at_home(giver: Store, taker: Store, tmp_path: Path, kind: str) -> None:
    calibration = CalibrationRecord(
        source="mix:path:/home/ann/secret/app=0.5,pack:python=0.5",
        digest=sha256_of(b""),
        samples=1,
        seq_len=8,
        seed=0,
    )
    change_model(giver, PYTHON, calibration=calibration)
    giver.put_run_record(giver.resolve(PYTHON), RUN)
    where = place_of(kind, tmp_path)
    give(giver, where)
    take(taker, where)
    model, record = taker.model(PYTHON), taker.run_record(taker.resolve(PYTHON))
    assert model.calibration is not None and record is not None
    assert model.calibration.source == "mix:path:app=0.5,pack:python=0.5"
    assert model.base.source == "path:checkpoint"
    assert (record.host, record.created, record.seconds) == ("", RUN.created, RUN.seconds)
    if kind != "hub":
        path = tmp_path / kind
        files = [one for one in path.rglob("*") if one.is_file()] if path.is_dir() else [path]
        for file in files:
            assert b"secret" not in file.read_bytes()
            assert b"anns-pc" not in file.read_bytes()
            assert str(tmp_path).encode() not in file.read_bytes()


def test_card_and_licence(giver: Store, tmp_path: Path) -> None:
    base = giver.model(PYTHON).base
    licence = base.licence.model_copy(update={"id": "Apache-2.0", "text": "Do as you like."})
    hub_base = base.model_copy(
        update={"licence": licence, "source": "hub:org/tiny", "revision": "a" * 40}
    )
    change_model(giver, PYTHON, base=hub_base)
    give(giver, str(tmp_path / "out"), PYTHON)
    text = (tmp_path / "out" / CARD).read_text()
    for part in (
        'license: "apache-2.0"',
        'base_model: ["org/tiny"]',
        "subllm pull out/",
        f"| {PYTHON} |",
        "2.000 -> 2.000 (+0.0%) | 100.0% |",
        f"org/tiny at {'a' * 40}",
        "- method: none",
    ):
        assert part in text
    assert (tmp_path / "out" / LICENCE).read_text() == "Do as you like.\n"


def test_a_base_is_pulled_as_ever_and_a_place_of_models_is_no_base(
    giver: Store, taker: Store, hub: FakeHub, tmp_path: Path
) -> None:
    for kind in KINDS:
        where = place_of(kind, tmp_path)
        give(giver, where)
        with pytest.raises(SharedModelsError) as caught:
            pull(where, taker, Catalog({}, {}), reach=Reach(endpoint=hub.url, probe_seconds=60.0))
        assert f"'subllm pull {where}' fetches them" in str(caught.value)
    for empty in (str(tmp_path / "checkpoint"), "hf:org/empty"):
        (tmp_path / "checkpoint").mkdir(exist_ok=True)
        hub.add_repo("org/empty", {"config.json": b"{}"})
        assert "no models were pushed" in refused(taker, empty, AcquireError)


def test_a_directory_or_file_of_something_else_stays(giver: Store, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("a year's work")
    (tmp_path / "thesis.tar").write_bytes(b"PaxHeader")
    with pytest.raises(UsageError, match=r"holds other things \(thesis.txt\)"):
        give(giver, str(tmp_path / "home"))
    with pytest.raises(UsageError, match="no archive of models"):
        give(giver, str(tmp_path / "thesis.tar"))
    with pytest.raises(UsageError, match="--public is for"):
        give(giver, str(tmp_path / "new"), public=True)
    with pytest.raises(UsageError, match="is a base, not a model"):
        give(giver, str(tmp_path / "new"), BASE)
    assert (tmp_path / "thesis.tar").read_bytes() == b"PaxHeader"
    assert not (tmp_path / "new").exists()
