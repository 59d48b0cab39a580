"""A filter on system calls: what no test program needs and attacks want.

It refuses sockets, new namespaces, mounts, tracing and limiting other processes, kernel
keys, BPF, io_uring, shared memory that no limit counts, and everything of a foreign
system call table. libseccomp makes it and bubblewrap puts it on.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

REFUSED = (
    *("socket", "unshare", "setns", "mount", "umount2", "pivot_root", "chroot", "open_tree"),
    *("move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr", "ptrace"),
    *("process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp", "bpf", "perf_event_open"),
    *("userfaultfd", "io_uring_setup", "memfd_create", "memfd_secret", "shmget", "semget"),
    *("msgget", "mq_open", "add_key", "request_key", "keyctl", "open_by_handle_at"),
    *("name_to_handle_at", "init_module", "finit_module", "delete_module", "kexec_load"),
    *("kexec_file_load", "reboot", "swapon", "swapoff", "acct", "quotactl", "syslog"),
    *("settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "sethostname"),
    *("setdomainname", "iopl", "ioperm", "uselib"),
)
_NEW_NAMESPACES = (0x00020000, *(1 << bit for bit in range(25, 31)))  # CLONE_NEWNS, CLONE_NEW...


def program() -> bytes | None:
    """The filter as bubblewrap wants it; None where libseccomp is not on this machine."""
    try:
        import pyseccomp as seccomp  # looks for the library
    except (ImportError, OSError, RuntimeError):
        return None
    calls = seccomp.SyscallFilter(seccomp.ALLOW)
    calls.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.ERRNO(errno.ENOSYS))
    refuse = seccomp.ERRNO(errno.EPERM)
    for name in REFUSED:
        with suppress(OSError):  # an architecture or a library that does not know it
            calls.add_rule(refuse, name)
    for flag in _NEW_NAMESPACES:
        calls.add_rule(refuse, "clone", seccomp.Arg(0, seccomp.MASKED_EQ, flag, flag))
    # Its flags lie in memory, out of a filter's reach; libraries then use clone.
    calls.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")
    # Limits of other processes: with one of CPU time a program could end process 1.
    calls.add_rule(refuse, "prlimit64", seccomp.Arg(0, seccomp.NE, 0))
    with os.fdopen(os.memfd_create("calls"), "w+b") as file:
        calls.export_bpf(file)
        file.seek(0)
        return file.read()
