"""Pushes to a hub: what goes, what comes back, and what is refused."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.hub import POOR_TOKEN, FakeHub, Fault
from huggingface_hub import constants

from subllm.errors import (
    AcquireError,
    CorruptError,
    GatedError,
    NetworkError,
    OfflineError,
    SubllmError,
    UsageError,
)
from subllm.models.acquire.hub_client import HubClient
from subllm.models.acquire.share.index import CARD, INDEX, blob_path
from subllm.models.store.manifest import blob_digests
from subllm.models.store.store import Store
from subllm.sharing.exchange import hub_push
from subllm.sharing.exchange.hub_errors import push_errors
from unit.models.acquire.test_processes import wait_for

from .samples import JAVA, PYTHON, change_model, give, take

REPO = "org/coder"
WHERE = f"hf:{REPO}"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the library's tries."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)


def files(hub: FakeHub) -> dict[str, bytes]:
    repo = hub.repos["model", REPO]
    return repo.commits[repo.commit]


def fails(store: Store, kind: type[SubllmError], where: str = WHERE, **options: object) -> str:
    with pytest.raises(kind) as caught:
        give(store, where, **options)
    assert type(caught.value) is kind
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_one_commit_makes_all_of_it_visible(giver: Store, hub: FakeHub) -> None:
    sent, _ = give(giver, WHERE)
    assert (sent.place, sent.pull) == (f"{hub.url}/{REPO}", WHERE)
    assert hub.uploads.visibility == {REPO: "private"}
    repo = hub.repos["model", REPO]
    assert len(repo.commits) == 2  # the hub's own, and ours
    held = files(hub)
    model = giver.model(PYTHON)
    for digest in blob_digests(model):
        assert held[blob_path(digest)] == giver.blobs.path(digest).read_bytes()
    assert json.loads(held[INDEX])["models"][0]["name"] == PYTHON
    assert f"subllm pull {WHERE}" in held[CARD].decode()
    large = [digest for digest in blob_digests(model) if digest != model.blobs.tokenizer]
    assert hub.uploads.came == {digest.removeprefix("sha256-"): 1 for digest in large}


def test_public_is_asked_for(giver: Store, hub: FakeHub) -> None:
    give(giver, WHERE, public=True)
    assert hub.uploads.visibility == {REPO: "public"}


def test_in_parts(giver: Store, taker: Store, hub: FakeHub) -> None:
    hub.uploads.part_size = 8_000
    _, watcher = give(giver, WHERE)
    watcher.assert_complete()
    assert max(hub.uploads.started.values()) > 1
    take(taker, WHERE)


def test_a_push_again_sends_and_commits_nothing(giver: Store, hub: FakeHub) -> None:
    size = give(giver, WHERE)[0].sent
    commit, came = hub.repos["model", REPO].commit, hub.uploads.came.copy()
    sent, _ = give(giver, WHERE)
    assert (sent.sent, sent.present) == (0, size)
    assert (hub.repos["model", REPO].commit, hub.uploads.came) == (commit, came)


def test_models_of_one_base_share_their_blobs(giver: Store, hub: FakeHub) -> None:
    give(giver, WHERE)
    before, came = files(hub), hub.uploads.came.copy()
    give(giver, WHERE, JAVA)
    assert hub.uploads.came == came
    new = files(hub).keys() - before.keys()
    assert [name.partition("/")[0] for name in new] == ["manifests"]
    assert [model["name"] for model in json.loads(files(hub)[INDEX])["models"]] == [JAVA, PYTHON]


def test_what_a_replaced_model_needed_goes(giver: Store, taker: Store, hub: FakeHub) -> None:
    give(giver, WHERE)
    before = {name for name in files(hub) if name.startswith("manifests/")}
    change_model(giver, PYTHON, density=0.25)
    give(giver, WHERE)
    assert before.isdisjoint(files(hub))
    take(taker, WHERE)
    assert taker.model(PYTHON).density == 0.25


def kill(
    hub: FakeHub, store: Store, *arguments: str, until: Callable[[], bool] = lambda: True
) -> None:
    """`subllm ARGUMENTS`, killed while the hub holds a file, and it has come so far."""
    environment = os.environ | {"HF_HUB_DISABLE_XET": "1", "HF_ENDPOINT": hub.url}
    process = subprocess.Popen(
        [sys.executable, "-m", "subllm", *arguments],
        env=environment | {"SUBLLM_HOME": str(store.root)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        hub.wait_holding()
        wait_for(until)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        hub.release()


def test_a_killed_push_goes_on(giver: Store, taker: Store, hub: FakeHub) -> None:
    model = giver.model(PYTHON)
    sizes = [giver.blobs.size(digest) for digest in blob_digests(model)[:2]]
    small, large = min(sizes), max(sizes)
    assert small < large - 100
    # The larger blob stops in its middle; where it is the first one, nothing is there yet.
    hub.uploads.hold_after = large - 50
    kill(hub, giver, "push", PYTHON, WHERE)
    assert INDEX not in files(hub)
    came = hub.uploads.came.copy()
    hub.uploads.hold_after = None
    give(giver, WHERE)
    assert hub.uploads.came.keys() >= came.keys()
    assert set(hub.uploads.came.values()) == {1}  # what had come did not come again
    take(taker, WHERE)


def test_a_killed_pull_goes_on(giver: Store, taker: Store, hub: FakeHub) -> None:
    give(giver, WHERE)
    name = blob_path(giver.model(PYTHON).blobs.own)
    hub.faults[name] = Fault(hold_after=20_000)
    partials = taker.workspace.partials

    def begun() -> bool:
        return any(path.stat().st_size for path in partials.glob("*/*.incomplete"))

    kill(hub, taker, "pull", WHERE, until=begun)
    hub.faults.clear()
    assert taker.names() == {}
    take(taker, WHERE)
    assert hub.sent(name) < len(files(hub)[name]) + 20_000 + 1
    last = [request for request in hub.requests if request.path.endswith(name)][-1]
    assert last.headers.get("range", "").startswith("bytes=")


def test_a_hub_that_stumbles_is_asked_again(giver: Store, taker: Store, hub: FakeHub) -> None:
    hub.uploads.status, hub.uploads.times = 503, 2
    _, watcher = give(giver, WHERE)
    watcher.assert_complete()
    take(taker, WHERE)


def test_two_who_push_at_once(giver: Store, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    give(giver, WHERE)
    upload = hub_push._missing

    def slowly(*arguments: object) -> object:
        repo = hub.repos["model", REPO]
        repo.push(repo.commits[repo.commit] | {CARD: b"mine"})
        return upload(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(hub_push, "_missing", slowly)
    with pytest.raises(AcquireError, match="changed while models were pushed to it; push again"):
        give(giver, WHERE, JAVA)
    assert files(hub)[CARD] == b"mine"


def test_who_may_not(giver: Store, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "use a token that may write to nobody" in fails(giver, GatedError, "hf:nobody/coder")
    monkeypatch.setenv("HF_TOKEN", POOR_TOKEN)
    assert "403: You don't have the rights" in fails(giver, GatedError)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "401" in fails(giver, GatedError)
    monkeypatch.delenv("HF_TOKEN")
    asked = len(hub.requests)
    assert "set HF_TOKEN, or log in with 'hf auth login'" in fails(giver, GatedError)
    assert len(hub.requests) == asked
    assert hub.repos == {}


def test_a_token_of_hf_auth_login(
    giver: Store, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = os.environ["HF_TOKEN"]
    monkeypatch.delenv("HF_TOKEN")
    Path(constants.HF_TOKEN_PATH).parent.mkdir(parents=True, exist_ok=True)
    Path(constants.HF_TOKEN_PATH).write_text(token)
    give(giver, WHERE)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda hub: setattr(hub.uploads, "room", 10), AcquireError, "no room for the push"),
        (lambda hub: setattr(hub.uploads, "status", 403), GatedError, "refused the push"),
        (lambda hub: setattr(hub.uploads, "status", 413), AcquireError, "no room for the push"),
        (lambda hub: setattr(hub, "status", 500), NetworkError, "answered 500"),
        (lambda hub: setattr(hub, "silent", True), NetworkError, "did not answer within 0.3 s"),
    ],
)
def test_a_push_that_cannot_be(
    giver: Store,
    hub: FakeHub,
    change: Callable[[FakeHub], None],
    kind: type[SubllmError],
    message: str,
) -> None:
    change(hub)
    hub.uploads.times = 100
    assert message in fails(giver, kind, probe_seconds=0.3 if hub.silent else 60.0)
    assert ("model", REPO) not in hub.repos or INDEX not in files(hub)


def test_offline_and_spelling(giver: Store, hub: FakeHub) -> None:
    assert "SUBLLM_OFFLINE is set" in fails(giver, OfflineError, offline=True)
    for where in ("hf:coder", "hf:org/a/b", "hf:org/..\n", "hf:"):
        fails(giver, UsageError, where)
    assert "leave it out" in fails(giver, UsageError, f"{WHERE}@v1")
    assert hub.requests == []


def test_a_repository_of_something_else(giver: Store, hub: FakeHub) -> None:
    hub.add_repo(REPO, {"config.json": b"{}", "model.safetensors": b"w"})
    assert "holds other things (config.json, model.safetensors)" in fails(giver, UsageError)
    assert set(files(hub)) == {"config.json", "model.safetensors"}


def test_a_damaged_blob_does_not_leave_the_house(
    giver: Store, hub: FakeHub, tmp_path: Path
) -> None:
    path = giver.blobs.path(giver.model(PYTHON).blobs.own)
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(data[:-1] + b"\x7f")
    for where in (WHERE, str(tmp_path / "out"), str(tmp_path / "out.subllm")):
        assert "run 'subllm verify'" in fails(giver, CorruptError, where)
    assert INDEX not in files(hub)
    assert not (tmp_path / "out" / INDEX).exists()
    assert not (tmp_path / "out.subllm").exists()


def test_a_hub_without_a_chunk_store(
    giver: Store, taker: Store, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its client is asked first, finds none, and the LFS interface does."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    _, watcher = give(giver, WHERE)
    watcher.assert_complete()
    assert any("xet-write-token" in request.path for request in hub.requests)
    assert not constants.HF_HUB_DISABLE_XET
    take(taker, WHERE)


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (ConnectionError("HTTP status client error (403 Forbidden)"), GatedError, "write to org"),
        (ConnectionError("HTTP status server error (502 Bad Gateway)"), NetworkError, "502"),
        (ConnectionError("dns error"), NetworkError, "could not be reached (dns error)"),
        (RuntimeError("CAS service error :\n  storage quota exceeded"), AcquireError, "no room"),
        (ValueError("Malformed\nresponse \x1b[0m"), NetworkError, "Malformed response [0m"),
    ],
)
def test_what_the_library_says_in_words(
    raised: Exception, kind: type[SubllmError], message: str
) -> None:
    with pytest.raises(kind) as caught, push_errors(HubClient("http://hub"), REPO):
        raise raised
    assert type(caught.value) is kind
    assert message in str(caught.value)
    assert str(caught.value).isprintable()


def test_the_chunk_store_tells_how_far_it_is() -> None:
    """The library has no public way to hear it; this is where it asks for its bars."""
    module = importlib.import_module(hub_push._REPORTING)
    library, heard = module.XetUploadProgressReporter, []
    with hub_push._chunk_progress(heard.append):
        reporter = module.XetUploadProgressReporter()

        class Report:
            total_bytes_completed = 7

        reporter.update_progress(Report(), {})
        reporter.close()
    assert heard == [7]
    assert module.XetUploadProgressReporter is library
