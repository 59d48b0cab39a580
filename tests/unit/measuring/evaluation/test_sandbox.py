"""The sandbox does what it says: files, streams, limits, outcomes, sessions, its own end."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from subllm.errors import SandboxError
from subllm.measuring.evaluation.sandbox import Sandbox

from .sandboxes import LIMITS, WAYS, PythonRuns, processes_with, sandbox_or_skip, word


@pytest.fixture(scope="module", params=WAYS)
def python(request: pytest.FixtureRequest) -> Iterator[PythonRuns]:
    with sandbox_or_skip(request.param) as sandbox:
        yield PythonRuns(sandbox)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with sandbox_or_skip() as sandbox:
        yield sandbox


def test_says_what_is_enforced(sandbox: Sandbox) -> None:
    text = "\n".join(sandbox.enforced)
    assert "no network" in text
    assert "disk: a private file system" in text
    assert ("memory: control groups" in text) != any(
        "memory is looked at" in line for line in sandbox.missing
    )


def test_files_streams_and_exit_status(python: PythonRuns) -> None:
    outcome = python(
        "import sys\n"
        "print(sys.stdin.read().upper())\n"
        "print('bad', file=sys.stderr)\n"
        "open('made', 'w').write('kept')\n"
        "sys.exit(7)\n",
        stdin="grüße".encode(),
        collect=("made", "absent"),
    )
    assert (outcome.status, outcome.exit_code) == ("exited", 7)
    assert (outcome.stdout, outcome.stderr) == ("GRÜSSE\n", "bad\n")
    assert dict(outcome.files) == {"made": b"kept"}
    assert 0 < outcome.cpu_seconds < outcome.seconds + 0.2


def test_large_streams_both_ways(python: PythonRuns) -> None:
    data = os.urandom(3 << 20)
    outcome = python(
        "import sys, hashlib\n"
        "print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())\n"
        "print('x' * 60_000)\n",
        stdin=data,
    )
    assert outcome.stdout.split() == [hashlib.sha256(data).hexdigest(), "x" * 60_000]
    assert not outcome.stdout_truncated


def test_a_program_need_not_read_its_input(python: PythonRuns) -> None:
    assert python("print(1)", stdin=b"x" * (1 << 20)).stdout == "1\n"


def test_ended_by_a_signal(python: PythonRuns) -> None:
    outcome = python("import os\nos.abort()")
    assert (outcome.status, outcome.exit_code) == ("exited", -signal.SIGABRT)
    assert outcome.stderr == ""  # nothing of the shell's


def test_the_environment_is_ours(python: PythonRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "of the user")
    outcome = python("import os\nprint(sorted(os.environ))")
    assert outcome.stdout == "['HOME', 'LANG', 'PATH', 'TMPDIR']\n"


def test_each_run_starts_with_an_empty_directory(python: PythonRuns) -> None:
    text = "import os\nopen('left', 'w')\nprint(sorted(os.listdir('.')), os.getcwd())"
    for _ in range(2):
        assert python(text).stdout == "['left', 'program.py'] /sandbox\n"


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", ""])
def test_names_outside_are_refused(sandbox: Sandbox, name: str) -> None:
    with pytest.raises(SandboxError, match="rename it"):
        sandbox.run(["true"], files={name: ""}, limits=LIMITS)
    with pytest.raises(SandboxError, match="rename it"):
        sandbox.run(["true"], files={}, limits=LIMITS, collect=[name])


def test_a_command_that_is_not_there(python: PythonRuns) -> None:
    outcome = python.sandbox.run(["no-such-program"], files={}, limits=LIMITS)
    assert (outcome.status, outcome.exit_code) == ("exited", 127)
    assert "no-such-program" in outcome.stderr


def test_shown_directories_are_read_only(sandbox: Sandbox, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "shown").write_text("text")
    outcome = sandbox.run(
        ["sh", "-c", f"cat {tmp_path}/shown; echo x > {tmp_path}/other"],
        files={},
        limits=LIMITS,
        read_only=[tmp_path],
    )
    assert outcome.stdout == "text"
    assert "Read-only" in outcome.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["shown"]


def test_runs_at_the_same_time(python: PythonRuns) -> None:
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda n: python(f"print({n})"), range(24)))
    assert [outcome.stdout for outcome in outcomes] == [f"{n}\n" for n in range(24)]


def test_runs_do_not_see_each_other(python: PythonRuns) -> None:
    look = (
        "import os, time\n"
        "open('mine', 'w')\n"
        "time.sleep(0.3)\n"
        "print(sorted(p for p in os.listdir('/proc') if p.isdigit() and p != '1'))\n"
        "print(sorted(os.listdir('.')), sorted(os.listdir('/tmp')))\n"
    )
    with ThreadPoolExecutor(2) as pool:
        for outcome in pool.map(python, [look, look]):
            files = "['mine', 'program.py']"
            assert outcome.stdout == f"['2']\n{files} {files}\n"


def test_a_session_answers_until_it_is_closed(sandbox: Sandbox) -> None:
    token = word("sandbox-session-token")
    session = sandbox.session(["sh", "-c", f"cat; : {token}"], files={}, limits=LIMITS)
    session.connection.settimeout(10)
    for text in (b"one", b"two"):
        session.connection.sendall(text)
        assert session.connection.recv(100) == text
    session.close()
    assert processes_with(token) == []


def test_closing_ends_what_runs() -> None:
    token = word("sandbox-closing-token")
    errors: list[str] = []

    def run(sandbox: Sandbox) -> None:
        try:
            sandbox.run(["sh", "-c", f"sleep 100; : {token}"], files={}, limits=long)
        except SandboxError as error:
            errors.append(str(error))

    long = replace(LIMITS, wall_seconds=100.0)
    with sandbox_or_skip() as sandbox:
        thread = threading.Thread(target=run, args=(sandbox,))
        thread.start()
        while not processes_with(token, patience=0.0):
            time.sleep(0.01)
        began = time.monotonic()
    thread.join(10)
    assert time.monotonic() - began < 5
    assert errors == ["the sandbox was closed while a program ran in it"]
    assert processes_with(token) == []
    with pytest.raises(SandboxError, match=r"closed|ended"):
        sandbox.run(["true"], files={}, limits=LIMITS)


def test_nothing_outlives_a_harness_that_is_killed() -> None:
    with sandbox_or_skip():
        pass
    token = word("sandbox-orphan-token")
    code = (
        "from subllm.measuring.evaluation.sandbox import Limits, Sandbox\n"
        "sandbox = Sandbox()\n"
        "print(sandbox._directory, flush=True)\n"
        f"limits = {LIMITS!r}\n"
        f"sandbox.run(['sh', '-c', 'sleep 100; : {token}'], files={{}}, limits=limits)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as harness:
        assert harness.stdout is not None
        directory = Path(harness.stdout.readline().decode().strip())
        assert directory.is_dir()
        while not any(line.startswith("sh ") for line in processes_with(token, patience=0.0)):
            assert harness.poll() is None
            time.sleep(0.02)
        harness.kill()
    assert processes_with(token, patience=5.0) == []
    with sandbox_or_skip():
        assert not directory.exists(), "the next one leaves its directory"


def test_no_group_and_no_directory_is_left() -> None:
    before = list(Path("/sys/fs/cgroup").glob(f"**/subllm-{os.getpid()}-*"))
    with sandbox_or_skip() as sandbox:
        sandbox.run(["true"], files={}, limits=LIMITS)
        assert sandbox._directory.exists()
    assert not sandbox._directory.exists()
    assert list(Path("/sys/fs/cgroup").glob(f"**/subllm-{os.getpid()}-*")) == before


@pytest.fixture
def no_namespaces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine that refuses namespaces: bubblewrap says so."""
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho 'bwrap: No permissions' >&2; exit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


@pytest.mark.usefixtures("no_namespaces")
def test_refused_where_nothing_can_be_contained() -> None:
    with pytest.raises(SandboxError, match=r"No permissions.*--unsafe"):
        Sandbox()


def test_without_bubblewrap_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(SandboxError, match=r"apt install bubblewrap.*--unsafe"):
        Sandbox()


def test_not_on_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(SandboxError, match="Linux only"):
        Sandbox(unsafe=True)


@pytest.mark.usefixtures("no_namespaces")
def test_unsafe_contains_what_it_can() -> None:
    with Sandbox(unsafe=True) as sandbox:
        python = PythonRuns(sandbox)
        assert any("programs see and change what you may" in line for line in sandbox.missing)
        outcome = python("import os\nopen('made', 'w').write(os.getcwd())", collect=("made",))
        assert outcome.exit_code == 0
        assert not Path(outcome.files["made"].decode()).exists()
        slow = python("while True: pass", limits=replace(LIMITS, wall_seconds=0.5))
        assert slow.status == "timeout"
        token = word("sandbox-unsafe-token")
        left = f"import subprocess\nsubprocess.Popen(['setsid', 'sh', '-c', 'sleep 99; : {token}'])"
        assert python(left).exit_code == 0
        assert processes_with(token) == []
