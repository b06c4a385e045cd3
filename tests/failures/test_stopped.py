"""A rank that is stopped by a signal: late, and not dead."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import collx
from collx import Communicator

LIMIT = 2.0  # seconds


def stopped(comm: Communicator) -> int:
    """The process of rank 1, which has stopped when the others return; it returns when it goes on."""
    pid = int(comm.all_gather(np.array([os.getpid()]))[1])
    if comm.rank == 1:
        os.kill(pid, signal.SIGSTOP)
    else:
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.001)
    return pid


def late(comm: Communicator, folder: Path) -> float:
    pid = stopped(comm)
    begun = time.monotonic()
    if comm.rank == 1:
        with pytest.raises(collx.AbortedError, match="TimeoutError"):
            comm.all_reduce(np.ones(1000))
        return 0.0
    where = "rank 1 is stopped, has finished all_gather #1 and called nothing since"
    with pytest.raises((collx.TimeoutError, collx.AbortedError), match=where):
        comm.all_reduce(np.ones(1000), timeout=LIMIT)
    took = time.monotonic() - begun
    if comm.rank == 2:
        (folder / "told").touch()
        return took
    while not (folder / "told").exists():  # the other one must have looked at a rank that is stopped, too
        time.sleep(0.001)
    os.kill(pid, signal.SIGCONT)
    return took


def test_a_stopped_rank_is_named_when_the_time_is_up(tmp_path: Path) -> None:
    took = collx.spawn(late, 3, tmp_path)
    assert LIMIT <= max(took) < LIMIT + 0.5


def late_inside(comm: Communicator) -> str:
    """As above, but it stops in the middle of a call."""
    pid = int(comm.all_gather(np.array([os.getpid()]))[1])
    if comm.rank == 1:
        threading.Timer(0.1, os.kill, (pid, signal.SIGSTOP)).start()
        with pytest.raises(collx.AbortedError, match="TimeoutError"):
            comm.broadcast(np.ones(1000), root=2)
        return ""
    if comm.rank == 2:
        with pytest.raises(collx.AbortedError, match="TimeoutError"):
            comm.recv(np.ones(1), 0)
        return ""
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.001)
    with pytest.raises(collx.TimeoutError) as caught:
        comm.recv(np.ones(1), 1, timeout=0.1)
    os.kill(pid, signal.SIGCONT)
    return str(caught.value)


def test_it_is_told_where_it_was_stopped() -> None:
    assert "rank 1 is stopped in broadcast #2" in collx.spawn(late_inside, 3)[0]


def waited_for(comm: Communicator, seconds: float) -> None:
    pid = stopped(comm)
    if comm.rank == 0:
        threading.Timer(seconds, os.kill, (pid, signal.SIGCONT)).start()
    assert comm.all_reduce(np.ones(1000))[0] == comm.size


@pytest.mark.parametrize("seconds", [1.5, pytest.param(30.0, marks=pytest.mark.slow)])
def test_a_stopped_rank_is_not_taken_for_dead(seconds: float) -> None:
    """Others look at its process every half second."""
    collx.spawn(waited_for, 3, seconds)
