"""Failures of the native engine that tests of behaviour do not come by: who is told, what is freed, what may hang."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import collx
from collx import Communicator
from collx.algorithms.ring import all_gather, reduce_scatter
from collx.errors import AbortedError, ClosedError, CollxError, RankFailedError, TimeoutError
from collx.native import NativeEngine
from collx.schedule import REGISTER, Schedule, algorithm
from collx.transports.lanes import MISMATCHED
from collx.types import Array
from tests import jobs
from tests.harness import native_engines, regions

SOON = 20.0  # seconds, for what happens at once where the machine has time


def at(array: Array) -> tuple[int, int]:
    return array.ctypes.data, array.nbytes


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + SOON
    while not (there := condition()) and time.monotonic() < end:
        time.sleep(0.005)
    return there


def asleep(thread: int) -> bool:
    """Whether a thread of this process sleeps, and has not just begun to, as where it takes over from another."""
    states = []
    for _ in range(5):
        states.append(Path(f"/proc/self/task/{thread}/stat").read_text().rpartition(")")[2].split()[0])
        time.sleep(0.001)
    return states == ["S"] * 5


@contextlib.contextmanager
def taken_up() -> Iterator[None]:
    """Returns when the progress thread, which begins in the block, waits for what was started there."""
    before = set(os.listdir("/proc/self/task"))
    yield
    (thread,) = set(os.listdir("/proc/self/task")) - before
    assert eventually(lambda: asleep(int(thread)))


class Stop(BaseException):  # as KeyboardInterrupt, which pytest takes for its own
    """What a signal handler raises."""


def stop(*_: object) -> None:
    raise Stop


def alarm(handler: Any, seconds: float = 0.2) -> None:
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)


# -- messages to oneself, beside others ---------------------------------------------------------------


def test_a_message_to_oneself_leaves_the_others_going() -> None:
    with native_engines(2) as (one, two):
        room, data = np.zeros(8, np.uint8), np.ones(8, np.uint8)
        with taken_up():
            coming = one.start_recv(*at(room), 1, 0, 60.0)
        one.send(*at(data), 0, 5, SOON)
        two.send(*at(data), 0, 0, SOON)
        assert eventually(coming.done)


def test_a_message_to_oneself_ends_the_receive_that_waits_for_it() -> None:
    with native_engines(2) as (one, _):
        room, data = np.zeros(8, np.uint8), np.ones(8, np.uint8)
        with taken_up():
            coming = one.start_recv(*at(room), 0, 5, 60.0)
        one.send(*at(data), 0, 5, SOON)
        assert eventually(coming.done)


# -- who has left -------------------------------------------------------------------------------------


def behind_another(comm: Communicator, told: Path) -> None:
    comm.barrier()
    if comm.rank == 0:
        comm.recv(np.zeros(4), 1, async_op=True)
        with pytest.raises(RankFailedError, match="rank 2 has closed"):
            comm.recv(np.zeros(4), 2, async_op=True).wait(timeout=SOON)
        told.touch()
    elif comm.rank == 1:
        assert eventually(told.exists)


def test_a_departure_is_noticed_behind_a_rank_that_is_late(tmp_path: Path) -> None:
    collx.spawn(behind_another, 3, tmp_path / "told")


def shared_payload(comm: Communicator) -> None:
    comm.barrier()
    if comm.rank == 2:
        comm.close()
        return

    def many() -> None:
        for _ in range(100):
            comm.broadcast(np.ones(100), algorithm="direct", timeout=SOON)

    with pytest.raises((RankFailedError, AbortedError), match="rank 2 has closed"):
        many()


def test_a_reader_of_a_shared_payload_that_left_is_named() -> None:
    collx.spawn(shared_payload, 3)


def test_a_rank_that_could_not_join_has_left() -> None:
    """Its region may have reached the others before it failed, as where it is interrupted in `split`."""
    with regions(2) as (owned, descriptors):
        engine = NativeEngine(owned[0], descriptors, rank=0)
        del owned[1]
        room = np.zeros(8, np.uint8)
        try:
            with pytest.raises(RankFailedError):
                engine.recv(*at(room), 1, 0, SOON)
        finally:
            engine.close()


# -- failures are told --------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["ä" * 200, "no file 'a\udcff'"], ids=["cut", "surrogate"])
def test_any_reason_can_be_told(reason: str) -> None:
    with native_engines(2) as (one, two):
        two.fail(reason)
        room = np.zeros(8, np.uint8)
        with pytest.raises(AbortedError):
            one.recv(*at(room), 1, 0, SOON)


def failing_unnoticed(comm: Communicator) -> None:
    comm.barrier()
    if comm.rank == 0:
        work = comm.recv(np.zeros(4), 1, async_op=True, timeout=0.1)
        assert eventually(work.done)
    else:
        with pytest.raises(AbortedError, match="rank 0 gave up"):
            comm.recv(np.zeros(4), 0, timeout=SOON - 1)


def test_a_failure_in_the_background_is_told_before_anybody_waits() -> None:
    collx.spawn(failing_unnoticed, 2)


def impatient(comm: Communicator) -> None:
    for _ in range(5000):
        work = comm.all_reduce(np.ones(20), async_op=True)
        while comm.rank == 0:
            try:
                work.wait(timeout=5e-6)
                break
            except TimeoutError:
                assert not comm.closed
        work.wait()


def test_waiting_for_too_short_breaks_nothing() -> None:
    collx.spawn(impatient, 2)


# -- what is cut off in the middle --------------------------------------------------------------------

HALF_RECEIVED = """
def body(comm):
    n = 64 << 20
    other = int(comm.all_gather(np.array([os.getpid()]))[1])
    if comm.rank == 1:
        comm.send(np.full(n, 5, np.uint8), 0)
        return
    half, room = np.zeros(n, np.uint8), np.zeros(n, np.uint8)
    comm.recv(half, 1, async_op=True, timeout=0.5)
    while not half[1 << 20]:
        pass
    os.kill(other, signal.SIGSTOP)
    time.sleep(1)
    os.kill(other, signal.SIGCONT)
    try:
        comm.recv(room, 1, timeout=2)
    except collx.CollxError:
        return
    assert (room == 5).all()

try:
    collx.spawn(body, 2)
except collx.RankFailedError as error:
    assert "SIGSEGV" not in str(error), error
except collx.CollxError:
    pass
"""


def test_a_receive_that_ended_in_the_middle_of_a_message(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, jobs.program(tmp_path, HALF_RECEIVED)], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr


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


# -- threads and signals ------------------------------------------------------------------------------


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


def out_of_memory(comm: Communicator) -> None:
    comm.barrier()
    if comm.rank == 0:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        work = comm.recv(np.zeros(4), 1, tag=2, async_op=True)
        with pytest.raises((CollxError, MemoryError)):
            work.wait(SOON)
        comm.close()
    else:
        with pytest.raises(CollxError, match="rank 0 gave up"):
            comm.send(np.zeros(2 << 30, np.uint8), 0, tag=1)  # nobody asked for it, so it is kept


def test_no_memory_for_a_message_is_an_error() -> None:
    collx.spawn(out_of_memory, 2)


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


# -- more moves under way than a look takes in --------------------------------------------------------


def one_way(rank: int, size: int) -> Schedule:
    """The ring all-reduce with both halves in one direction, over one lane."""
    back = [-place % size for place in range(size)]
    return reduce_scatter(rank, size).then(all_gather(-rank % size, size).relabelled(back))


def long_way(comm: Communicator) -> None:
    x = np.ones(400_000)
    assert (comm.all_reduce(x, algorithm="one_way", timeout=10.0) == comm.size).all()


def test_many_rounds_of_many_slices_on_one_lane() -> None:
    algorithm(
        "all_reduce",
        "one_way",
        rounds=lambda size: 2 * (size - 1),
        volume=lambda size: Fraction(2 * (size - 1), size),
        wins="",
        source="",
    )(one_way)
    try:
        collx.spawn(long_way, 12)
    finally:
        del REGISTER["all_reduce", "one_way"]


# -- one verdict --------------------------------------------------------------------------------------


def test_whose_own_verdict_it_is_that_a_rank_failed_raises_that() -> None:
    """Also where its next call meets messages that the failure cut off."""
    with native_engines(3) as ranks:
        one = ranks[0]
        assert isinstance(one, NativeEngine)
        one.transport.endpoint.propose_failed(2)
        with pytest.raises(RankFailedError) as caught:
            one.raise_for((MISMATCHED, 1, 0, 0), "barrier #2", SOON)
        assert caught.value.ranks == (2,)
