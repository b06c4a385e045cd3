"""Failures of the native engine that tests of behaviour do not come by: who is told, what is freed, what may hang."""

from __future__ import annotations

import resource
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import collx
from collx import Communicator
from collx.algorithms.ring import all_gather, reduce_scatter
from collx.errors import AbortedError, CollxError, RankFailedError, TimeoutError
from collx.native import NativeEngine
from collx.schedule import REGISTER, Schedule, algorithm
from collx.transports.lanes import MISMATCHED
from tests import jobs
from tests.engines.asleep import SOON, at, eventually, taken_up
from tests.harness import native_engines, regions

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
