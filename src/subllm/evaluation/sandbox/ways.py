"""Which ways to contain programs a machine may have, and what would give it one."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

# Settings that forbid user namespaces: name, value that does, value that does not.
_SWITCHES = (
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("user.max_user_namespaces", "0", "10000"),
)


def modes(unsafe: bool, rootless: bool) -> list[str]:
    """Ways to contain programs, the best first; see launcher.py."""
    if os.geteuid() == 0:
        # Not bubblewrap: its programs would be root, if without rights, to the kernel.
        found = ["user"] if rootless else ["root", "user"]
    else:
        found = ["user"] + ["bubblewrap"] * (shutil.which("bwrap") is not None)
    return [*found, "none"] if unsafe else found


def advice() -> str:
    """What would let this machine contain programs."""
    for name, forbids, allows in _SWITCHES:
        with suppress(OSError):
            if Path("/proc/sys", name.replace(".", "/")).read_text().strip() == forbids:
                return f"allow user namespaces with 'sudo sysctl {name}={allows}'"
    if Path("/.dockerenv").exists() or Path("/run/.containerenv").exists():
        return "start this container with rights to make namespaces (--privileged)"
    return "allow user namespaces here"
