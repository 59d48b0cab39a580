"""`serve`, `ps` and `stop` with servers that really run."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from subllm import __version__
from subllm.cli import daemon
from subllm.cli.server_client import ServerClient
from subllm.models.store.collect import remove
from subllm.models.store.store import Store
from subllm.settings import load_settings

from .conftest import Live
from .samples import Ran
from .tiny_store import BASE, build, greedy, write_checkpoint

Command = Callable[..., Ran]
PATIENCE = 120.0  # seconds for what is bound to come


@pytest.fixture(autouse=True)
def no_server_is_left(tmp_path: Path) -> Iterator[None]:
    yield
    for server in daemon.running(tmp_path / "subllm-home"):
        os.kill(server.pid, signal.SIGKILL)


def test_detach_ps_ask_stop(
    tiny: Store, free_port: Callable[[], int], subllm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    # The server runs in another directory: what is relative here must not be there.
    monkeypatch.setenv("SUBLLM_HOME", "subllm-home")
    monkeypatch.chdir(tiny.root.parent)
    started = subllm("serve", "--port", str(port), "--detach", "--context-length", "100")
    assert (started.status, started.err) == (0, "")
    lines = started.out.splitlines()
    url = f"http://127.0.0.1:{port}"
    assert lines[0] == f"listening  {url}/v1"
    assert lines[1] == f"models     {BASE}-dense, {BASE}-java, {BASE}-python"
    assert lines[2] == (
        f"editors    OpenAI-compatible, base URL {url}/v1, model auto, API key any (none is needed)"
    )

    (server,) = subllm("ps", "--json").json
    assert (server["url"], server["port"], server["version"]) == (url, port, __version__)
    assert (server["answers"], server["loaded"], server["loading"]) == (True, [], None)
    assert 0 <= server["uptime_seconds"] < 600
    assert 10_000_000 < server["memory_bytes"] < 1_000_000_000

    assert subllm("complete", "def f(x):", "-n", "5").out == greedy(tiny, b"def f(x):", 5)
    row = subllm("ps").out.splitlines()[1]
    assert row.split()[:2] == [url, str(server["pid"])]
    assert f"{BASE}-python (" in row
    refused = subllm("complete", "x" * 150)
    assert (refused.status, refused.out) == (7, "")
    assert "context is 100 tokens" in refused.err

    again = subllm("serve", "--port", str(port), "--detach")
    assert (again.status, again.out) == (8, "")
    assert again.err.startswith(f"error: a server of this store runs on port {port} already")
    assert again.err.count("\n") == 1

    stopped = subllm("stop")
    assert (stopped.status, stopped.err) == (0, "")
    assert stopped.out == f"stopped {url} (pid {server['pid']})\n"
    assert not daemon.record_path(tiny.root, port).exists()
    assert subllm("ps", "--json").json == []
    assert "No server runs" in subllm("ps").err
    gone = subllm("stop")
    assert (gone.status, gone.out) == (8, "")
    assert gone.err == "error: no server of this store runs; start one with 'subllm serve'\n"


def test_a_port_taken_by_another(live_server: Live, tiny: Store, subllm: Command) -> None:
    """By a server of another store, which `ps` here does not know."""
    for more in ([], ["--detach"]):
        ran = subllm("serve", "--port", str(live_server.server.port), *more)
        assert (ran.status, ran.out) == (8, "")
        assert ran.err.startswith("error: ")
        assert ran.err.endswith(
            f"port {live_server.server.port} is taken by a subllm server of another store "
            f"(pid {live_server.server.pid}); choose another --port\n"
        )
        assert ran.err.count("\n") == 1
    assert subllm("ps", "--json").json == []
    assert subllm("stop", "--port", str(live_server.server.port)).status == 8


def test_a_port_taken_by_another_program(tiny: Store, subllm: Command) -> None:
    """Named as far as the system tells; never shown, asked or stopped as ours."""
    code = (
        "import socket; s = socket.create_server(('127.0.0.1', 0));"
        "print(s.getsockname()[1], flush=True); import sys; sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        for more in ([], ["--detach"]):
            ran = subllm("serve", "--port", str(port), *more)
            assert (ran.status, ran.out) == (8, "")
            assert ran.err.count("\n") == 1
            assert f"port {port} is taken by python" in ran.err
            assert ran.err.endswith(f" (pid {process.pid}); choose another --port\n")
        assert subllm("ps", "--json").json == []
        assert subllm("stop", "--port", str(port)).status == 8
        assert process.poll() is None
        process.communicate("")


def test_foreground_until_ctrl_c(
    tmp_path: Path, free_port: Callable[[], int], subllm: Command
) -> None:
    """Also: an empty store is served, and Ctrl-C is a good end."""
    home, port = tmp_path / "subllm-home", free_port()
    with subprocess.Popen(
        [sys.executable, "-m", "subllm", "serve", "--port", str(port), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "SUBLLM_API_KEY": "secret"},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        text = ""
        while not text.endswith("}\n"):
            text += process.stdout.readline().decode()
        assert json.loads(text) == {
            "url": f"http://127.0.0.1:{port}/v1",
            "host": "127.0.0.1",
            "port": port,
            "pid": process.pid,
            "models": [],
        }
        (found,) = daemon.running(home)
        assert (found.pid, found.port) == (process.pid, port)
        with pytest.raises(Exception, match="set SUBLLM_API_KEY"):
            ServerClient(found.url, "wrong").get("/v1/models")
        assert ServerClient(found.url, "secret").get("/v1/models")["data"][0]["id"] == "auto"
        refused = subllm("complete", "x")
        assert refused.status == 8
        assert "SUBLLM_API_KEY" in refused.err
        assert subllm("ps", "--json").json[0]["answers"]
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == b""
        assert process.stderr.read() == b""
        assert process.wait(PATIENCE) == 0
    assert daemon.running(home) == []
    assert not daemon.record_path(home, port).exists()


def test_a_killed_server_is_forgotten(live: Live, tiny: Store, subllm: Command) -> None:
    """Its record stays behind and is not believed."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        record = daemon.record_path(live.store.root, live.server.port).read_text()
        stale = daemon.record_path(tiny.root, live.server.port)
        stale.parent.mkdir(exist_ok=True)
        stale.write_text(record.replace(f'"pid": {live.server.pid}', f'"pid": {process.pid}'))
        assert daemon.running(tiny.root) == []
    finally:
        process.kill()
        process.wait()


def test_several_servers(
    free_port: Callable[[], int], tiny: Store, subllm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which one is meant. Records of this process stand for servers."""
    ended: list[int] = []
    monkeypatch.setattr(daemon, "stop", lambda server: ended.append(server.port))
    one, two = free_port(), free_port()
    with daemon.recorded(tiny.root, "127.0.0.1", one), daemon.recorded(tiny.root, "::1", two):
        unclear = subllm("stop")
        assert unclear.status == 2
        assert "several servers run; say --port" in unclear.err
        assert subllm("stop", "--port", str(two)).status == 0
        monkeypatch.setenv("SUBLLM_PORT", str(one))
        assert subllm("stop", "--json").json[0]["port"] == one
        assert sorted(s["port"] for s in subllm("stop", "--all", "--json").json) == sorted(
            [one, two]
        )
        assert subllm("stop", "--all", "--port", "1").status == 2
        absent = subllm("stop", "--port", "1")
    assert absent.status == 8
    assert "no server of this store runs on port 1, but on" in absent.err
    assert ended == [two, one, *sorted([one, two])]


def test_a_new_model_is_served_at_once(live: Live, subllm: Command) -> None:
    name = f"{BASE}-cpp"
    model = live.store.model(f"{BASE}-dense").model_copy(update={"name": name, "language": "cpp"})
    live.store.set_ref(name, live.store.put_manifest(model))
    try:
        ran = subllm("complete", "int main() {", "-l", "c++", "-n", "2", "--json")
        assert ran.json["model"] == name
    finally:
        remove(live.store, name)
    ran = subllm("complete", "int main() {", "-l", "c++", "-n", "2", "--json")
    assert (ran.json["model"], ran.json["route"]) == (f"{BASE}-dense", "fallback")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "0.0.0.0"], "refusing to listen on 0.0.0.0 without an API key"),
        (["--port", "0"], "--port: input should be greater than or equal to 1"),
        (["--speculation", "wildly"], "--speculation: "),
        (["--host", "no.such.host.invalid"], ""),
    ],
)
def test_bad_settings(arguments: list[str], message: str, tiny: Store, subllm: Command) -> None:
    for more in ([], ["--detach"]):
        ran = subllm("serve", *arguments, *more)
        assert ran.status in (2, 8)
        assert ran.out == ""
        assert ran.err.startswith("error: ")
        assert message in ran.err
        assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "value", "line"),
    [
        ("--device", "cuda:1", "device = 'cuda:1' (or SUBLLM_DEVICE=cuda:1)"),
        ("--backend", "torch", "backend = 'torch' (or SUBLLM_BACKEND=torch)"),
        ("--max-loaded-models", "2", "max_loaded_models = 2 (or SUBLLM_MAX_LOADED_MODELS=2)"),
        ("--max-queue", "9", "max_queue = 9 (or SUBLLM_MAX_QUEUE=9)"),
        ("--log-level", "debug", "log_level = 'debug' (or SUBLLM_LOG_LEVEL=debug)"),
    ],
)
def test_an_option_that_moved_says_where(
    option: str, value: str, line: str, subllm: Command
) -> None:
    """What it says is taken there."""
    for given in ([option, value], [f"{option}={value}"]):
        ran = subllm("serve", *given)
        assert (ran.status, ran.out) == (2, "")
        assert ran.err == f"error: {option} moved to config.toml: {line}\n"
    name = option.removeprefix("--").replace("-", "_")
    written = tomllib.loads(line.partition(" (or ")[0])
    assert str(getattr(load_settings(**written), name)) == value


def test_help_shows_twelve_options_and_where_the_others_are(subllm: Command) -> None:
    text = subllm("serve", "--help").out
    options = re.findall(r"^  (?:-\w, )?(--[a-z-]+)", text, re.MULTILINE)
    assert len(set(options) - {"--help"}) == 12, options
    for name in ("config.toml", "SUBLLM_DEVICE", "max_queue", "max_loaded_models", "log_level"):
        assert name in text


@pytest.mark.parametrize("way", ["stop", "kill -9"])
def test_a_server_that_ends_while_it_answers(
    way: str, tmp_path: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text so far stays, the exit code says what happened."""
    home = tmp_path / "subllm-home"
    monkeypatch.setenv("SUBLLM_HOME", str(home))
    # A context so long that the answer is not over before the signal.
    build(home, write_checkpoint(tmp_path / "checkpoint", context=8192))
    port = free_port()
    server = daemon.launch(home, "127.0.0.1", port, ["--threads", "1"], None)
    with subprocess.Popen(
        [sys.executable, "-m", "subllm", "complete", "def f(", "-n", "8000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        text = process.stdout.read(3)
        if way == "stop":
            daemon.stop(server)
        else:
            os.kill(server.pid, signal.SIGKILL)
        text += process.stdout.read()
        err = process.stderr.read().decode()
        assert process.wait(PATIENCE) == 7
    assert len(text) < 8000
    assert greedy(Store(home), b"def f(", len(text)).encode() == text
    said = (
        "the server is shutting down" if way == "stop" else f"the server at {server.url} was lost"
    )
    assert err.startswith(f"error: {said}")
    assert err.endswith(f"({len(text)} characters of the answer came)\n")
    assert err.count("\n") == 1


def test_a_unix_socket(tiny: Store, tmp_path: Path, subllm: Command) -> None:
    """Its file is this user's alone; one that a killed server left is taken over, one in use
    is not."""
    path = tmp_path / "s.sock"
    url, serve = f"unix:{path}", ("serve", "--host", f"unix:{path}", "--detach")
    started = subllm(*serve)
    assert (started.status, started.err) == (0, "")
    assert started.out.splitlines()[0] == f"listening  {url}"
    assert path.stat().st_mode & 0o777 == 0o600
    assert subllm("complete", "def f(", "-n", "5", "--json").json["text"] == greedy(
        tiny, b"def f(", 5
    )
    (server,) = subllm("ps", "--json").json
    assert (server["url"], server["answers"]) == (url, True)
    refused = subllm(*serve, "--port", "4242")
    assert (refused.status, f"{path} (taken)" in refused.err) == (8, True)

    os.kill(server["pid"], signal.SIGKILL)
    until_gone(server["pid"])
    assert path.exists()
    assert subllm(*serve).status == 0
    assert subllm("complete", "def f(", "-n", "1").status == 0
    assert subllm("stop").status == 0
    assert not path.exists()

    path.write_text("a file of somebody")
    refused = subllm(*serve)
    assert refused.status == 8 and path.read_text() == "a file of somebody"


def until_gone(pid: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(PATIENCE)


def test_a_name_in_the_network_is_answered_where_it_is_allowed(
    tiny: Store, free_port: Callable[[], int], subllm: Command
) -> None:
    port = free_port()
    options = ["--port", str(port), "--detach", "--allowed-hosts", "box.lan,other.lan"]
    assert subllm("serve", *options).status == 0
    for host, status in (("box.lan", 200), (f"OTHER.lan:{port}", 200), ("evil.example", 403)):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        with closing(connection):
            connection.request("GET", "/v1/models", headers={"Host": host})
            assert connection.getresponse().status == status
    assert subllm("stop").status == 0
