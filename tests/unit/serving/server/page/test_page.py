"""The page over HTTP: its files, what it may do, and what it is told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources

import pytest

from subllm.models.store.manifest import (
    CurveRecord,
    Likeness,
    RecoveryRecord,
    RecoveryRun,
    sha256_of,
)
from subllm.models.store.working import Work
from subllm.serving.server import page
from subllm.serving.server.page.files import FILES
from unit.serving.server.connections import COMPLETIONS, LONG, send
from unit.serving.server.tiny import PYTHON, Live, live, manifest, shelf, until


@pytest.fixture(scope="module")
def guarded() -> Iterator[Live]:
    with live(shelf(), api_key="secret") as running:
        yield running


@pytest.mark.parametrize("path", FILES)
def test_files_need_no_key_and_may_do_little(guarded: Live, path: str) -> None:
    reply = guarded.http.get(path)
    assert reply.status_code == 200
    assert reply.headers["content-type"].endswith("charset=utf-8")
    policy = reply.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in reply.headers
    assert guarded.http.head(path).status_code == 200


def test_every_file_is_served_and_nothing_else(guarded: Live) -> None:
    there = {item.name for item in resources.files(page).joinpath("static").iterdir()}
    assert there == set(FILES.values())
    for path in ("/ui/", "/ui/index.html", "/ui/../app.py", "/ui/%2e%2e/files.py"):
        assert guarded.http.get(path, headers={"authorization": "Bearer secret"}).status_code == 404


def test_nothing_comes_from_elsewhere_or_inline() -> None:
    for name in FILES.values():
        text = resources.files(page).joinpath("static", name).read_text()
        outside = set(re.findall(r"https?://[^\s\"']+", text))
        assert outside <= {"http://www.w3.org/2000/svg"}  # a name, not an address
        if name.endswith(".html"):
            assert re.findall(r"<script(?![^>]* src=)", text) == []
            assert re.findall(r"<style|\sstyle=|\son\w+=", text) == []
        assert "innerHTML" not in text
        assert "insertAdjacentHTML" not in text


def test_the_state_needs_the_key_and_the_host(guarded: Live) -> None:
    assert guarded.http.get("/ui/state").status_code == 401
    key = {"authorization": "Bearer secret"}
    assert guarded.http.get("/ui/state", headers=key).status_code == 200
    assert guarded.http.get("/ui/state", headers=key | {"host": "a.example"}).status_code == 403
    assert guarded.http.get("/", headers={"host": "a.example"}).status_code == 403


def test_models_and_requests(slow: Live) -> None:
    told = slow.http.get("/ui/state").json()
    assert (told["status"], told["loading"], told["work"]) == ("ok", None, [])
    assert told["ids"][-1] == "auto"
    python = next(model for model in told["models"] if model["name"] == PYTHON)
    assert (python["language"], python["pattern"], python["density"]) == ("python", "8:16", 0.5)
    assert python["loaded"]["bytes"] > 0
    assert python["fills_in"] is True
    before = len(told["requests"]["ended"])

    connection = send(slow, COMPLETIONS, {**LONG, "prompt": "what nobody may see"})
    running: list[dict[str, object]] = []

    def begun() -> bool:
        running[:] = slow.http.get("/ui/state").json()["requests"]["running"]
        return bool(running and running[0]["completion_tokens"])

    until(begun)
    (request,) = running
    assert (request["model"], request["path"], request["route"]) == (PYTHON, COMPLETIONS, "model")
    assert request["prompt_tokens"] == len("what nobody may see")
    assert "nobody" not in str(running)
    connection.close()
    until(lambda: not slow.http.get("/ui/state").json()["requests"]["running"])
    ended = slow.http.get("/ui/state").json()["requests"]["ended"]
    assert len(ended) == before + 1
    assert ended[0]["running"] is False


def test_the_last_requests_are_remembered(shared: Live) -> None:
    for number in range(22):
        shared.post(COMPLETIONS, model=PYTHON, prompt=f"{number}", max_tokens=2, ignore_eos=True)
    ended = shared.http.get("/ui/state").json()["requests"]["ended"]
    assert len(ended) == 20
    newest = ended[0]
    assert (newest["completion_tokens"], newest["finish"]) == (2, "length")
    assert newest["client"].startswith("python-httpx")
    assert newest["first_seconds"] > 0


class Facts:
    """Of a store where one model learned and another is being extracted."""

    def work(self) -> list[Work]:
        return [Work("tiny-1m-cpp", 1, blocks=3)]

    def recovery(self, digest: str) -> RecoveryRun | None:
        points = [
            CurveRecord(tokens=n, seconds=n, loss=None, heldout_kl=0.1, agreement=0.8 + n / 1e4)
            for n in range(200)
        ]
        return RecoveryRun(seconds=1.0, compute="x", curve=tuple(points))


def test_what_the_store_tells(shared: Live) -> None:
    digest = sha256_of(b"")
    record = RecoveryRecord(
        recipe={}, tokens=199, source="x", text=digest, heldout=digest,
        before=Likeness(agreement=0.8, kl=0.2), after=Likeness(agreement=0.82, kl=0.1),
    )  # fmt: skip
    learned = shelf()
    learned.manifests[PYTHON] = manifest(PYTHON, "python", recovery=record)
    with live(learned, facts=Facts()) as running:
        told = running.http.get("/ui/state").json()
    assert told["work"] == [{"what": "tiny-1m-cpp", "pid": 1, "blocks": 3}]
    recovery = next(m["recovery"] for m in told["models"] if m["name"] == PYTHON)
    assert (recovery["tokens"], recovery["before"], recovery["after"]) == (199, 0.8, 0.82)
    assert 50 < len(recovery["curve"]) < 100
    assert recovery["curve"][0] == [0, 0.8]
