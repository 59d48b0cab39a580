"""What programs may try against the machine: all contained, and the next run goes well.

Python programs here, with and without root's rights; test_toolchain_attacks.py has those of
each language.
"""

from __future__ import annotations

import os
import platform
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from subllm.measuring.evaluation.sandbox import Outcome, calls
from subllm.measuring.evaluation.sandbox.processes import below

from .sandboxes import LIMITS, MIB, WAYS, PythonRuns, processes_with, sandbox_or_skip, word

SHORT = replace(LIMITS, wall_seconds=1.0)


@pytest.fixture(scope="module", params=WAYS)
def runs(request: pytest.FixtureRequest) -> Iterator[PythonRuns]:
    with sandbox_or_skip(request.param) as sandbox:
        yield PythonRuns(sandbox)


@pytest.fixture
def python(runs: PythonRuns) -> Iterator[PythonRuns]:
    """After each attack nothing of it runs, and a good program runs as ever."""
    before = set(below(os.getpid()))
    yield runs
    deadline = time.monotonic() + 2
    while set(below(os.getpid())) - before:
        assert time.monotonic() < deadline, "something still runs"
        time.sleep(0.01)
    after = runs("print('well')")
    assert (after.status, after.stdout) == ("exited", "well\n"), after


def test_fork_bomb(python: PythonRuns) -> None:
    outcome = python(
        "import os, time\n"
        "born = 0\n"
        "while True:\n"
        "    try:\n"
        "        if os.fork() == 0: time.sleep(100)\n"
        "        born += 1\n"
        "    except OSError:\n"
        "        break\n"
        "print(born)\n"
    )
    assert 4 <= int(outcome.stdout) < LIMITS.processes


def test_each_run_has_its_own_count_of_processes(python: PythonRuns) -> None:
    """Also beside another sandbox, which may take the same user for its runs."""
    text = (
        "import os, time\n"
        "for _ in range(10):\n"
        "    if os.fork() == 0: time.sleep(100)\n"
        "time.sleep(1)\n"
        "print('all')\n"
    )
    with sandbox_or_skip() as other, ThreadPoolExecutor(4) as pool:
        elsewhere = PythonRuns(other)
        outcomes = list(pool.map(lambda run: run(text), [python, elsewhere] * 2))
    assert [outcome.stdout for outcome in outcomes] == ["all\n"] * 4


def test_fork_bomb_that_goes_on(python: PythonRuns) -> None:
    text = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass\n"
    outcome = python(text, limits=SHORT)
    assert outcome.status == "timeout"
    assert outcome.seconds < 5


def test_threads_count_as_processes(python: PythonRuns) -> None:
    outcome = python(
        "import threading, time\n"
        "n = 0\n"
        "try:\n"
        "    while True:\n"
        "        threading.Thread(target=time.sleep, args=(100,), daemon=True).start()\n"
        "        n += 1\n"
        "except RuntimeError:\n"
        "    print(n)\n"
    )
    assert 4 <= int(outcome.stdout) < LIMITS.processes


def test_memory_bomb(python: PythonRuns) -> None:
    outcome = python("x = []\nwhile True: x.append(b'x' * (1 << 20))")
    assert outcome.status == "memory" or "MemoryError" in outcome.stderr


def test_memory_of_many_processes(python: PythonRuns) -> None:
    """Each is below the limit; together they are not."""
    outcome = python(
        "import os, time\n"
        "for _ in range(8):\n"
        "    if os.fork() == 0:\n"
        "        x = b'x' * (64 << 20)\n"
        "        time.sleep(100)\n"
        "time.sleep(100)\n"
    )
    assert outcome.status == "memory"


def test_shared_memory(python: PythonRuns) -> None:
    outcome = python(
        "import mmap\n"
        "x = []\n"
        "while True:\n"
        "    x.append(mmap.mmap(-1, 8 << 20))\n"
        "    x[-1].write(b'x' * (8 << 20))\n"
    )
    assert outcome.status == "memory"


def test_large_file(python: PythonRuns) -> None:
    outcome = python("open('f', 'wb').write(b'x' * (64 << 20))")
    assert "File too large" in outcome.stderr


def test_disk_filler(python: PythonRuns) -> None:
    outcome = python(
        "n = 0\n"
        "try:\n"
        "    while True:\n"
        "        open(f'f{n}', 'wb').write(b'x' * (1 << 20))\n"
        "        n += 1\n"
        "except OSError as error:\n"
        "    print(n, error.strerror)\n"
    )
    count, reason = outcome.stdout.split(maxsplit=1)
    assert int(count) <= LIMITS.disk_bytes // MIB
    assert reason == "No space left on device\n"


def test_memory_in_files(python: PythonRuns) -> None:
    """A disk larger than the memory: what is written stays when the writer is killed."""
    limits = replace(LIMITS, memory_bytes=48 * MIB, file_bytes=400 * MIB, disk_bytes=400 * MIB)
    outcome = python(
        "x = b'x' * (1 << 20)\n"
        "with open('f', 'wb') as f:\n"
        "    for _ in range(300): f.write(x)\n"
        "print('all')\n",
        limits=limits,
        collect=("f",),
    )
    if "control groups" in "".join(python.sandbox.enforced):
        assert outcome.status == "memory"
    else:
        assert any("looked at" in line for line in python.sandbox.missing)


def test_many_small_files(python: PythonRuns) -> None:
    """Bubblewrap sets no limit to their number: there memory and time are one."""
    limits = replace(LIMITS, wall_seconds=4.0)
    outcome = python("n = 0\nwhile True:\n    open(f'f{n}', 'w')\n    n += 1\n", limits=limits)
    assert "No space left" in outcome.stderr or outcome.status in ("memory", "timeout")


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_endless_output(python: PythonRuns, stream: str) -> None:
    outcome = python(f"import sys\nwhile True: sys.{stream}.write('x' * 1000)")
    assert outcome.status == "output"
    assert len(getattr(outcome, stream)) == LIMITS.output_bytes
    assert getattr(outcome, f"{stream}_truncated")


def test_files_of_the_user(python: PythonRuns, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("private")
    canary.chmod(0o644)
    paths = [
        *(canary, Path.home(), "/home", "/etc/passwd", "/etc/shadow", "/sys", "/var"),
        *("/dev/shm", "/dev/sda"),
    ]
    outcome = python(
        "import os\n"
        f"for path in {[str(path) for path in paths]}:\n"
        "    try:\n"
        "        found = os.listdir(path) if os.path.isdir(path) else [open(path).read()]\n"
        "        if found: print(path, *found)\n"
        "    except OSError: pass\n"
    )
    assert outcome.exit_code == 0
    # The interpreter may lie in a home: the way there is shown, and nothing beside it.
    way = {
        f"{above} {path.relative_to(above).parts[0]}"
        for path in python.read_only
        for above in path.parents
    }
    assert set(outcome.stdout.splitlines()) <= way


def test_the_system_cannot_be_written(python: PythonRuns) -> None:
    outcome = python(
        "import os\n"
        "for path in ('/x', '/usr/x', '/bin/sh', '/dev/x', '/proc/sys/kernel/hostname'):\n"
        "    try: open(path, 'w'); print(path)\n"
        "    except OSError: pass\n"
    )
    assert (outcome.exit_code, outcome.stdout) == (0, "")


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"])
def test_connecting_out(python: PythonRuns, family: str) -> None:
    if calls.program() is None:
        pytest.skip("NO SYSTEM CALL FILTER on this machine")
    outcome = python(f"import socket\nsocket.socket(socket.{family})")
    assert "Operation not permitted" in outcome.stderr


def test_no_network_even_with_a_socket(runs: PythonRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network namespace alone, without the filter."""
    monkeypatch.setattr("subllm.measuring.evaluation.sandbox.calls.program", lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as server, sandbox_or_skip() as sandbox:
        port = server.getsockname()[1]
        outcome = PythonRuns(sandbox)(
            "import socket\n"
            "open('made', 'w')\n"
            f"for address in (('127.0.0.1', {port}), ('192.0.2.1', 80)):\n"
            "    try: socket.create_connection(address, 1)\n"
            "    except OSError as error: print(error.strerror)\n"
        )
    # The first is a loopback device of its own, where nobody listens.
    assert outcome.stdout in (
        "Connection refused\nNetwork is unreachable\n",
        "Network is unreachable\n" * 2,
    )


def test_killing_everything(python: PythonRuns) -> None:
    outcome = python(
        "import os\n"
        "for target in (1, os.getppid(), -1):\n"
        "    for number in (9, 15, 19, 2, 1):\n"
        "        try: os.kill(target, number)\n"
        "        except OSError: pass\n"
        "print('alive')\n"
    )
    assert outcome.stdout == "alive\n"


def test_process_1_cannot_be_limited_and_is_no_way_out(python: PythonRuns) -> None:
    """It may be of the same user: then it has no more than the program has."""
    outcome = python(
        "import os, resource\n"
        "try: resource.prlimit(1, resource.RLIMIT_CPU, (0, 0)); print('limited')\n"
        "except OSError: pass\n"
        "resource.prlimit(0, resource.RLIMIT_NOFILE, (32, 32))\n"
        "own = os.stat('/proc/1').st_uid == os.getuid()\n"
        "try: open('/proc/1/mem', 'rb').close(); own = True\n"
        "except OSError: pass\n"
        "if own:\n"
        "    print(sorted(v.split('=')[0] for v in open('/proc/1/environ').read().split('\\0')))\n"
        "    print(sorted(os.listdir('/proc/1/root')) == sorted(os.listdir('/')))\n"
        "    status = dict(l.split(':', 1) for l in open('/proc/1/status').read().splitlines())\n"
        "    print([int(status[n], 16) for n in ('CapEff', 'CapPrm', 'CapBnd')])\n"
        "    print(status['Seccomp'].split(), status['NoNewPrivs'].split())\n"
        "    print([l.split()[2:4] for l in open('/proc/1/limits') if 'processes' in l])\n"
    )
    assert outcome.exit_code == 0
    if outcome.stdout:
        assert outcome.stdout.splitlines() == [
            "['', 'HOME', 'LANG', 'PATH', 'PWD', 'TMPDIR']",
            "True",
            "[0, 0, 0]",
            "['2'] ['1']",
            "[['16', '16']]",
        ]


def test_daemons(python: PythonRuns) -> None:
    token = word("sandbox-daemon-token")
    outcome = python(
        "import os, sys\n"
        "for _ in range(3):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        if os.fork() == 0:\n"
        f"            os.execv('/bin/sh', ['sh', '-c', 'sleep 100; : {token}'])\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
        "print('done')\n"
    )
    assert (outcome.exit_code, outcome.stdout) == (0, "done\n")
    assert outcome.seconds < 5  # though the daemons hold its output open
    assert processes_with(token) == []


def test_links_out_of_the_directory(python: PythonRuns, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("private")
    outcome = python(
        "import os\n"
        f"os.symlink({str(canary)!r}, 'out')\n"
        "os.symlink('/etc/ld.so.cache', 'system')\n"
        "os.symlink('/', 'all')\n"
        "os.mkfifo('pipe')\n"
        "os.mkdir('directory')\n"
        "try: open('out', 'w')\n"
        "except OSError as error: print(error.strerror)\n",
        collect=("out", "system", "all", "pipe", "directory"),
    )
    assert outcome.stdout == "No such file or directory\n"
    assert dict(outcome.files) == {}
    assert canary.read_text() == "private"


@pytest.mark.parametrize(
    "text",
    [
        "import signal\nfor n in (24, 15, 2): signal.signal(n, signal.SIG_IGN)\nwhile True: pass\n",
        "import os\nos.kill(os.getpid(), 19)\n",  # stops itself
        "import time\ntime.sleep(100)\n",
    ],
    ids=["deaf", "stopped", "asleep"],
)
def test_hanging(python: PythonRuns, text: str) -> None:
    outcome = python(text, limits=SHORT)
    assert outcome.status == "timeout"
    assert outcome.seconds < 5


def test_cpu_time_of_several_processes(python: PythonRuns) -> None:
    limits = replace(LIMITS, wall_seconds=20.0, cpu_seconds=0.5)
    outcome = python("import os\nos.fork(); os.fork()\nwhile True: pass\n", limits=limits)
    assert outcome.status == "timeout"
    assert 0.4 < outcome.cpu_seconds < 2
    assert outcome.seconds < 10


def test_the_kernel_s_limit_of_cpu_time_is_one(python: PythonRuns) -> None:
    """It goes by another clock than what is counted afterwards, which may have less."""
    limits = replace(LIMITS, wall_seconds=20.0, cpu_seconds=1.0)
    ends = [python("while True: pass\n", limits=limits).status for _ in range(4)]
    assert ends == ["timeout"] * 4
    outcome = python("import os, signal\nos.kill(os.getpid(), signal.SIGXCPU)\n", limits=limits)
    assert (outcome.status, outcome.exit_code) == ("exited", -signal.SIGXCPU)


def test_limits_cannot_be_raised(python: PythonRuns) -> None:
    outcome = python(
        "import resource\n"
        "for name in ('NPROC', 'FSIZE', 'DATA', 'NOFILE', 'CPU', 'CORE'):\n"
        "    try: resource.setrlimit(getattr(resource, 'RLIMIT_' + name), (-1, -1)); print(name)\n"
        "    except (OSError, ValueError): pass\n"
    )
    assert (outcome.exit_code, outcome.stdout) == (0, "")


def test_no_rights_are_left(python: PythonRuns) -> None:
    outcome = python("print(open('/proc/self/status').read())")
    status = dict(line.split(":", 1) for line in outcome.stdout.splitlines() if ":" in line)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == 0, name
    assert int(status["NoNewPrivs"]) == 1
    assert int(status["Uid"].split()[0]) != 0


CALLS = """
import ctypes, platform
libc = ctypes.CDLL(None, use_errno=True)
def call(name, number, *arguments):
    if libc.syscall(number, *arguments) != -1 or ctypes.get_errno() not in (1, 38):
        print(name, ctypes.get_errno())
"""


def test_refused_system_calls(python: PythonRuns) -> None:
    if calls.program() is None:
        pytest.skip("NO SYSTEM CALL FILTER on this machine")

    def number(name: str) -> int:
        return int(pyseccomp.resolve_syscall(pyseccomp.system_arch(), name))

    import pyseccomp

    tries = [
        f"call({name!r}, {number(name)}, 0, 0, 0, 0, 0)"
        for name in calls.REFUSED
        if number(name) >= 0
    ]
    assert len(tries) > 40
    for flag in (0x00020000, 0x02000000, 0x10000000, 0x20000000, 0x40000000):
        tries.append(f"call('clone', {number('clone')}, {flag} | 17, 0, 0, 0, 0)")
    tries.append(f"call('clone3', {number('clone3')}, 0, 0)")
    if platform.machine() == "x86_64":
        tries.append("call('x32', 0x40000000 | 39)")
    outcome = python(CALLS + "\n".join(tries))
    assert (outcome.exit_code, outcome.stdout) == (0, "")


def test_verdicts_do_not_depend_on_the_run_before(python: PythonRuns) -> None:
    def again() -> Outcome:
        return python("print(open('left').read())")

    python("open('left', 'w').write('poison')\nopen('/tmp/left', 'w').write('poison')")
    assert "FileNotFoundError" in again().stderr
