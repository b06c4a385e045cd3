"""Threads and signal handlers in the middle of the native engine's calls."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import collx
from collx import Communicator
from collx.errors import AbortedError, ClosedError, RankFailedError
from tests import jobs
from tests.engines.asleep import SOON, Stop, alarm, asleep, at, eventually, stop
from tests.harness import native_engines


def test_an_interrupted_receive_is_forgotten() -> None:
    with native_engines(2) as (one, two):
        gone, room, data = np.zeros(100), np.zeros(100), np.ones(100)
        alarm(stop)
        with pytest.raises(Stop):
            one.recv(*at(gone), 1, 1, SOON)
        try:
            two.send(*at(data), 0, 1, SOON)
            one.start_recv(*at(room), 1, 1, SOON).wait(SOON)
        except (ClosedError, AbortedError):
            return
        assert room.sum() == 100


def first_things_last(comm: Communicator) -> None:
    if comm.rank == 0:
        last, first = (comm.recv(np.zeros(4), 1, tag, async_op=True) for tag in (1, 2))
        waiting = threading.Thread(target=last.wait)
        waiting.start()
        assert eventually(lambda: asleep(waiting.native_id or 0))
        comm.send(np.ones(4), 1, 2, async_op=True)
        first.wait()
        comm.send(np.ones(4), 1, 3, async_op=True)
        waiting.join()
    else:
        for tag in (2, 3):
            comm.recv(np.zeros(4), 0, tag, timeout=SOON)
            comm.send(np.ones(4), 0, 2 if tag == 2 else 1)


def test_two_threads_wait_for_two_works() -> None:
    collx.spawn(first_things_last, 2)


def interrupted_beside_another(comm: Communicator) -> None:
    if comm.rank == 0:
        one, two = (comm.recv(np.zeros(4), 1, tag, async_op=True) for tag in (1, 2))
        waiting = threading.Thread(target=one.wait)
        waiting.start()
        assert eventually(lambda: asleep(waiting.native_id or 0))
        alarm(stop)
        with pytest.raises(Stop):
            two.wait()
        comm.send(np.ones(1), 1, async_op=True)
        waiting.join()
    else:
        comm.recv(np.zeros(1), 0, timeout=SOON)
        for tag in (1, 2):
            comm.send(np.ones(4), 0, tag)


def test_a_wait_is_interrupted_while_another_thread_waits() -> None:
    collx.spawn(interrupted_beside_another, 2)


CALLING = """
def body(comm):
    comm.barrier()
    if comm.rank == 0:
        signal.signal(signal.SIGALRM, lambda *_: comm.send(np.ones(1), 1, tag=9))
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            comm.recv(np.zeros(4), 1)
        except collx.CollxError:
            return
        raise AssertionError
    time.sleep(1)

collx.spawn(body, 2)
"""

REENTERING = """
def body(comm):
    def op(a, b):
        comm.send(np.ones(1), 1 - comm.rank)
        return a + b

    try:
        comm.all_reduce(np.ones(3), collx.ReduceOp.custom(op))
    except collx.CollxError:
        return
    raise AssertionError

collx.spawn(body, 2)
"""


@pytest.mark.parametrize("text", [CALLING, REENTERING], ids=["handler", "op"])
def test_a_call_in_the_middle_of_a_call_is_refused(tmp_path: Path, text: str) -> None:
    path = jobs.program(tmp_path, text)
    with jobs.nothing_left_behind(str(path)):
        done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=60, env=jobs.CLEAN)
    assert done.returncode == 0, done.stderr


def closed_by_a_handler(comm: Communicator, told: Path) -> None:
    comm.barrier()
    if comm.rank == 0:
        alarm(lambda *_: comm.close())
        with pytest.raises(ClosedError):
            comm.recv(np.zeros(4), 1)
        assert eventually(told.exists)  # alive until then
    else:
        with pytest.raises(RankFailedError, match="rank 0 has closed"):
            comm.recv(np.zeros(4), 0, timeout=SOON)
        told.touch()


def test_a_signal_handler_that_closes_tells_the_others(tmp_path: Path) -> None:
    collx.spawn(closed_by_a_handler, 2, tmp_path / "told")


DAEMON = """
import threading
comm = collx.init()
if comm.rank == 0:
    threading.Thread(target=lambda: comm.recv(np.zeros(4), 1), daemon=True).start()
    time.sleep(0.2)
else:
    time.sleep(0.5)
"""


def test_an_exit_with_a_daemon_thread_in_a_call(tmp_path: Path) -> None:
    done = jobs.collx_run("-n", 2, jobs.program(tmp_path, DAEMON))
    assert done.returncode == 0, done.stderr
