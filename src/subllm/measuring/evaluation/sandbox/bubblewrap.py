"""Bubblewrap, where it may make namespaces and we may not.

Some systems keep user namespaces for programs that they know, of which `bwrap` is one. It
builds the same view as `view.enter` does and starts a Python in it, as process 1, that
goes on as `inside.main`. That Python and this package are visible to the program then.
"""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

from subllm.measuring.evaluation.sandbox import inside, view, wire
from subllm.measuring.evaluation.sandbox.limits import Limits

_PACKAGE = Path(__file__).resolve().parents[3]
_PYTHON = str(Path(sys.executable).resolve())  # not a virtual environment's link to it
_CODE = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from subllm.measuring.evaluation.sandbox import bubblewrap; bubblewrap.main()"
)
_UNSHARED = ("user", "pid", "net", "ipc", "uts", "cgroup-try")


def shown() -> tuple[view.Shown, ...]:
    """What Python needs to be inside, besides what all programs see."""
    return tuple(view.Shown.at(path) for path in (sys.base_prefix, str(_PACKAGE)))


def start(job: inside.Job, report: socket.socket, streams: tuple[int, int, int]) -> NoReturn:
    """Become bubblewrap; the keeper sends the job, see `send`, as it cannot be inherited."""
    try:
        for descriptor in (report.fileno(), *streams):
            os.set_inheritable(descriptor, True)
        os.dup2(streams[2], 2)  # for bubblewrap's own complaints
        numbers = [str(number) for number in (report.fileno(), *streams)]
        python = [_PYTHON, "-I", "-S", "-c", _CODE, str(_PACKAGE.parent), *numbers]
        os.execve("/usr/bin/env", ["env", "bwrap", *_options(job), "--", *python], _ENVIRONMENT)  # noqa: S606
    finally:
        os._exit(1)


_ENVIRONMENT = {"PATH": os.environ.get("PATH", os.defpath)}


def _options(job: inside.Job) -> list[str]:
    options = [f"--unshare-{kind}" for kind in _UNSHARED]
    options += ["--die-with-parent", "--as-pid-1", "--cap-drop", "ALL", "--hostname", "sandbox"]
    seen: list[str] = []
    for each in job.shown:
        if any(each.path.startswith(above + "/") or each.path == above for above in seen):
            continue
        if each.link is not None:
            options += ["--symlink", each.link, each.path]
        else:
            options += ["--ro-bind", each.path, each.path]
            seen.append(each.path)
    options += ["--dev", "/dev", "--remount-ro", "/dev", "--proc", "/proc"]
    options += ["--size", str(job.limits.disk_bytes), "--tmpfs", view.WORK]
    if not any(each.path.startswith("/tmp/") for each in job.shown):  # noqa: S108
        options += ["--symlink", view.WORK, "/tmp"]  # noqa: S108
    return [*options, "--remount-ro", "/", "--chdir", view.WORK]


def send(job: inside.Job, connection: socket.socket) -> None:
    """The keeper's part: hand the job to the process inside."""
    fields = asdict(job)
    del fields["shown"]
    files = fields.pop("files")
    wire.send(connection, {**fields, "names": list(files)}, list(files.values()))


def main() -> NoReturn:
    """Process 1 of the namespace that bubblewrap made."""
    report = socket.socket(fileno=int(sys.argv[1]))
    stdin, stdout, stderr = map(int, sys.argv[2:5])
    header, blobs = wire.receive(report)
    files = dict(zip(header.pop("names"), blobs, strict=True))
    limits = Limits(**header.pop("limits"))
    inside.main(
        inside.Job(**header, files=files, shown=(), limits=limits), report, (stdin, stdout, stderr)
    )
