"""A small process that starts the runs: forking it is cheap, forking the harness is not.

    python -I -S -c '... launcher.main()' MODE DIRECTORY      with a socket as descriptor 0

It takes on what its children share (a network namespace without a network, perhaps a user
namespace), says hello with what it can enforce, and then forks a keeper for each
connection that the harness passes it. It ends, and with it every run, when the harness
says that it is done or closes the socket. MODE is

    root        namespaces by right; every run becomes a user of its own
    user        namespaces through a user namespace, as anybody may
    bubblewrap  namespaces through bwrap, see bubblewrap.py
    none        no namespaces: for `unsafe` only
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

from subllm.measuring.evaluation.sandbox import wire
from subllm.measuring.evaluation.sandbox.keeper import keep
from subllm.measuring.evaluation.sandbox.means import Means, take_on


def main() -> None:
    mode, directory = sys.argv[1:3]
    control = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the harness decides
    try:
        means, enforced, missing = take_on(mode, directory)
    except OSError as error:
        wire.send(control, {"error": str(error)})
        return
    groups = means.groups
    hello = {
        "enforced": enforced,
        "missing": missing,
        "groups": groups is not None,
        "leaf": str(groups.leaf) if groups is not None and groups.leaf is not None else None,
    }
    orderly = False
    with suppress(OSError):
        wire.send(control, hello)
        orderly = _serve(control, means)
    with suppress(ChildProcessError):
        while True:
            os.wait()  # keepers end their runs: their connections are closed too
    if groups is not None:
        groups.remove()
    if not orderly:
        shutil.rmtree(Path(directory).parent, ignore_errors=True)


def _serve(control: socket.socket, means: Means) -> bool:
    """Start keepers until the harness is done (True) or has gone without a word (False)."""
    slots: dict[int, int] = {}  # keeper -> slot
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 3)
        if not message or message == wire.DONE:
            return message == wire.DONE
        _reap(slots)
        slot = next(n for n in range(len(slots) + 1) if n not in slots.values())
        pid = os.fork()
        if pid == 0:
            control.close()
            try:
                keep(socket.socket(fileno=descriptors[0]), descriptors[1:], means, slot)
            finally:
                os._exit(0)
        slots[pid] = slot
        for descriptor in descriptors:
            os.close(descriptor)


def _reap(slots: dict[int, int]) -> None:
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG)[0]) != 0:
            slots.pop(ended, None)
