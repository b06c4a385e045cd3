"""A call that fails gives its caller's memory back, also where half a message is on its way there, or from there."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import collx
from collx.communicator import Communicator
from tests.ranks import by_tcp

Bytes = npt.NDArray[np.uint8]
SIZE = 32 << 20  # bytes, more than a lane, the kernel's buffers, and some ms take
SENT, UNTOUCHED, OURS = 1, 2, 3
SOON, LONG = 0.5, 60.0  # seconds; what comes too late for SOON is tried again
LIBC = ctypes.CDLL(None)
LIBC.mmap.restype = ctypes.c_void_p

Failing = Callable[[Communicator, Bytes, int], bool]


def times_out(comm: Communicator, x: Bytes, root: int) -> bool:
    with suppress(collx.TimeoutError):
        return comm.broadcast(x, root=root, timeout=SOON) is None
    return True


def is_interrupted(comm: Communicator, x: Bytes, root: int) -> bool:
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, SOON)
    try:
        with suppress(KeyboardInterrupt):
            return comm.broadcast(x, root=root, timeout=LONG) is None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return True


def times_out_in_background(comm: Communicator, x: Bytes, root: int) -> bool:
    work = comm.broadcast(x, root=root, timeout=SOON, async_op=True)
    with suppress(collx.TimeoutError):
        return work.wait(LONG) is None
    return True


def is_revoked(comm: Communicator, x: Bytes, root: int) -> bool:
    work = comm.broadcast(x, root=root, timeout=LONG, async_op=True)
    with suppress(collx.TimeoutError):
        return work.wait(SOON) is None
    comm.revoke()
    with suppress(collx.RevokedError):
        return work.wait(LONG) is None
    return True


each_failing = pytest.mark.parametrize("fails", [times_out, is_interrupted, times_out_in_background, is_revoked])
each_end = pytest.mark.parametrize("unmapped", [False, True], ids=["overwritten", "unmapped"])


def same(comm: Communicator) -> Communicator:
    """Another communicator of the same ranks, to be broken."""
    group = comm.split(0)
    assert group is not None
    return group


def mapped(value: int) -> Bytes:
    """Memory that nobody else has anything in."""
    flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    address = LIBC.mmap(None, ctypes.c_size_t(SIZE), *flags, -1, ctypes.c_long(0))
    x: Bytes = np.frombuffer(memoryview((ctypes.c_uint8 * SIZE).from_address(address)), np.uint8)
    x[:] = value
    return x


def use_otherwise(x: Bytes, unmapped: bool) -> None:
    """As its owner may, from now on."""
    if unmapped:
        assert LIBC.munmap(ctypes.c_void_p(x.ctypes.data), ctypes.c_size_t(SIZE)) == 0
    else:
        x[:] = OURS


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    while state(pid) != "T":
        time.sleep(0.001)


@contextmanager
def stopped_amid(pid: int, x: Bytes) -> Iterator[None]:
    """In the block another thread stops a process as soon as the first of what it sends is in `x`."""
    over = threading.Event()

    def watch() -> None:
        while x[0] != SENT and not over.is_set():
            time.sleep(0)
        stop(pid)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


@each_end
@each_failing
def test_of_a_rank_that_sends(fails: Failing, unmapped: bool) -> None:
    """Its peer, stopped while the message comes, takes the rest of what is on its way later."""
    called = os.pipe()

    def body(comm: Communicator) -> None:
        pids, group = comm.all_gather(np.array([os.getpid()])), same(comm)
        if comm.rank == 1:
            x = np.full(SIZE, UNTOUCHED, np.uint8)
            os.write(called[1], b".")
            with pytest.raises(collx.CollxError):
                group.broadcast(x, root=0, timeout=LONG)
            assert not (x == OURS).any()
        else:
            x, peer = mapped(SENT), int(pids[1])
            os.read(called[0], 1)
            while state(peer) != "S":  # it waits in its call
                time.sleep(0.001)
            stop(peer)
            try:
                assert fails(group, x, 0)
                use_otherwise(x, unmapped)
                group.close()  # sends what is left to be sent
            finally:
                os.kill(peer, signal.SIGCONT)
        comm.barrier()

    by_tcp(body, 2)


@each_end
@each_failing
def test_of_a_rank_that_receives(fails: Failing, unmapped: bool) -> None:
    """Its peer, stopped while it sends, may send the rest later."""

    def body(comm: Communicator) -> None:
        pids = comm.all_gather(np.array([os.getpid()]))
        while not comm.all_reduce(np.array([once(comm, int(pids[1]))]), "land")[0]:
            pass

    def once(comm: Communicator, peer: int) -> bool:
        """Whether it failed in the middle: all may have come before the peer was stopped, or nothing."""
        group = same(comm)
        if comm.rank == 1:
            with suppress(collx.CollxError):
                group.broadcast(np.full(SIZE, SENT, np.uint8), root=1, timeout=LONG)
            comm.barrier()
            return True
        x = mapped(UNTOUCHED)
        try:
            with stopped_amid(peer, x):
                failed = fails(group, x, 1)
            amid = failed and 0 < int(np.count_nonzero(x == SENT)) < SIZE
            if failed:
                use_otherwise(x, unmapped)
        finally:
            os.kill(peer, signal.SIGCONT)
        comm.barrier()
        group.close()
        assert not failed or unmapped or (x == OURS).all()
        return amid

    by_tcp(body, 2)


def test_of_ranks_whose_calls_do_not_match() -> None:
    def body(comm: Communicator) -> None:
        x = np.full(SIZE, SENT + comm.rank, np.uint8)
        with pytest.raises(collx.MismatchError):
            comm.broadcast(x, root=0) if comm.rank == 0 else comm.all_reduce(x, out=x)
        assert (x == SENT + comm.rank).all()

    by_tcp(body, 2)
