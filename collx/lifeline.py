"""Nothing outlives its job: ranks die with their parent, and a keeper ends what a killed launcher left behind."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import shutil
import signal
import struct
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from types import FrameType

from collx.errors import BootstrapError

GRACE = 1.0  # seconds
PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None, use_errno=True)  # loaded here: between fork and exec there is no room for it


def die_with(parent: int) -> None:
    """Have the kernel kill this process when the thread of process `parent` that forked it ends."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the kernel was told
        os._exit(128 + signal.SIGKILL)


def await_end(pids: Iterable[int]) -> None:
    """Return when one of the processes that still run has ended, or after GRACE seconds."""
    poll, pidfds = select.poll(), []
    for pid in pids:
        with contextlib.suppress(OSError):
            pidfds.append(os.pidfd_open(pid))
            poll.register(pidfds[-1], select.POLLIN)
    ended = {fd for fd, _ in poll.poll(0)}
    for fd in ended:
        poll.unregister(fd)
    if len(ended) < len(pidfds):
        poll.poll(GRACE * 1000)
    for fd in pidfds:
        os.close(fd)


def fork() -> int:
    """os.fork, without Python's warning that other threads exist: what is forked here does not need them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
        return os.fork()


def fork_apart(body: Callable[[], object]) -> None:
    """Run `body` in a process that is nobody's child, so that nobody waits for it, and not in the caller's session."""
    pid = fork()
    if pid == 0:
        try:
            os.setsid()
            if fork() == 0:
                body()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


@contextlib.contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Ctrl-C in the block takes effect at its end: what it raised inside of os.fork would be swallowed by Python,
    or lose the child's number."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    held: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda *call: held.append(call))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if held:
        handler(*held[0])


def job_directory() -> str:
    """A new directory that only this user can enter, for ranks to meet in."""
    return tempfile.mkdtemp(prefix="collx-")  # mode 0700


def new_path() -> str:
    """Where to make a directory that has not been there before."""
    return os.path.join(os.path.abspath(tempfile.gettempdir()), f"collx-{os.urandom(8).hex()}")


def meeting_place(rendezvous: str) -> AbstractContextManager[str]:
    """The directory where the ranks of this host meet, as long as they do; a world of one has a `rendezvous` of ""."""
    kind, _, directory = rendezvous.partition(":")
    if not rendezvous:
        return contextlib.nullcontext(job_directory())
    if kind not in ("unix", "job") or not directory.startswith("/"):
        raise BootstrapError(f"COLLX_RENDEZVOUS is {rendezvous!r}, but must be unix:/DIRECTORY")
    return shared_directory(directory) if kind == "job" else contextlib.nullcontext(directory)


@contextlib.contextmanager
def shared_directory(path: str) -> Iterator[str]:
    """In the block `path` is a directory that only this user can enter; whoever comes first makes it, and it is removed
    when the last has left the block, however that one ends. Raises BootstrapError where it cannot be had."""
    try:
        place = _entered(path)
    except OSError as error:
        raise BootstrapError(
            f"ranks cannot meet in {path}: {error.strerror}; does TMPDIR name a local disk?"
        ) from error
    try:
        yield path
    finally:
        os.close(place)  # and with it the lock


def _entered(path: str) -> int:
    """The directory, open and locked against its removal."""
    while True:
        with contextlib.ExitStack() as stack:
            if not os.path.lexists(path):
                stack.callback(_keep_directory(path))  # before there is anything to keep
                with contextlib.suppress(FileExistsError):
                    os.mkdir(path, 0o700)
            try:
                place = os.open(path, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            if os.fstat(place).st_uid == os.geteuid():  # else it will be refused, and its owner could lock it for ever
                fcntl.flock(place, fcntl.LOCK_SH)
            if os.fstat(place).st_nlink:
                return place
            os.close(place)


def _keep_directory(path: str) -> Callable[[], None]:
    """Fork a process that removes the directory when nobody has it locked any more. It begins to look when what this
    returns is called, or its caller has died."""
    begin, begun = os.pipe()
    fork_apart(lambda: _remove_unused(begin, path))
    os.close(begin)
    return lambda: os.close(begun)


def _remove_unused(begin: int, path: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.dup2(begin, 0)
    os.closerange(1, 1 << 16)
    os.read(0, 1)
    with contextlib.suppress(OSError):
        place = os.open(path, os.O_DIRECTORY | os.O_NOFOLLOW)
        fcntl.flock(place, fcntl.LOCK_EX)
        if os.fstat(place).st_nlink:  # else the path may be another's by now
            shutil.rmtree(path, ignore_errors=True)


class Keeper:
    """A process that outlives its maker by as long as it takes to kill the process groups it was told of and to
    remove the job's directory. It does so however its maker ends: by `close`, or by SIGKILL."""

    def __init__(self) -> None:
        self.directory = job_directory()
        orders, self._orders = os.pipe()
        self._pid = fork()
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
