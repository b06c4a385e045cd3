"""Nothing outlives its job: ranks die with their parent, and a keeper ends what a killed launcher left behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import struct
import tempfile

PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None, use_errno=True)  # loaded here: between fork and exec there is no room for it


def die_with(parent: int) -> None:
    """Have the kernel kill this process when the thread of process `parent` that forked it ends."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the kernel was told
        os._exit(128 + signal.SIGKILL)


def job_directory() -> str:
    """A new directory that only this user can enter, for ranks to meet in."""
    return tempfile.mkdtemp(prefix="collx-")  # mode 0700


class Keeper:
    """A process that outlives its maker by as long as it takes to kill the process groups it was told of and to
    remove the job's directory. It does so however its maker ends: by `close`, or by SIGKILL."""

    def __init__(self) -> None:
        self.directory = job_directory()
        orders, self._orders = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _keep(orders, self.directory)
        os.close(orders)

    def guard(self, group: int) -> None:
        os.write(self._orders, struct.pack("i", group))

    def close(self) -> None:
        """Return when all groups are killed and the directory is removed."""
        os.close(self._orders)
        os.waitpid(self._pid, 0)


def _keep(orders: int, directory: str) -> None:
    groups = []
    try:
        os.setsid()  # what ends the maker's process group must not end the keeper
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        os.dup2(orders, 0)  # only this stays open: a reader of the maker's output must not wait for the keeper
        os.closerange(1, 1 << 16)
        while order := os.read(0, 4):
            groups.append(struct.unpack("i", order)[0])
        for group in groups:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        shutil.rmtree(directory, ignore_errors=True)
    finally:
        os._exit(0)
