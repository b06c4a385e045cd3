"""What mpi4py's own tests do not ask of messages, on three ranks: order, errors that are survived, joined groups."""

import pickle
import sys
import threading
import time
from collections.abc import Callable
from typing import cast

import numpy as np
import pytest
from mpi4py import MPI

world = MPI.COMM_WORLD
rank, size = world.rank, world.size
status = MPI.Status()


def receives_are_served_in_the_order_they_were_posted() -> None:
    """Wildcards among them: each message goes to the first that would have it."""
    if rank == 1:
        world.Barrier()
        for number, tag in ((10, 7), (11, 7), (12, 5), (13, 7)):
            world.Send(np.array([number]), 0, tag)
    elif rank == 0:
        got = np.zeros(4, int)
        asked = ((MPI.ANY_SOURCE, 7), (1, MPI.ANY_TAG), (1, 7), (MPI.ANY_SOURCE, MPI.ANY_TAG))
        requests = [world.Irecv(got[n : n + 1], *which) for n, which in enumerate(asked)]
        world.Barrier()
        statuses: list[MPI.Status] = []
        MPI.Request.Waitall(requests, statuses)
        assert got.tolist() == [10, 11, 13, 12], got
        assert [(s.source, s.tag, s.Get_count(MPI.LONG)) for s in statuses] == [(1, 7, 1)] * 3 + [(1, 5, 1)]
    else:
        world.Barrier()


def data_lands_while_nobody_calls() -> None:
    big = np.zeros(1 << 20)
    if rank == 0:
        request = world.Irecv(big, 1)
        world.Barrier()
        while not big[-1]:
            time.sleep(0.001)
        assert request.Test()
    else:
        world.Barrier()
        if rank == 1:
            world.Send(np.ones(1 << 20), 0)


def what_is_too_long_is_told_and_the_next_comes() -> None:
    if rank == 1:
        world.Send(np.arange(4), 0, 1)
        world.send("x" * 100_000, 0, 2)
        world.send("next", 0, 2)
    elif rank == 0:
        for receive in (lambda: world.Recv(np.zeros(3, int), 1, 1), world.irecv(source=1, tag=2).wait):
            with pytest.raises(MPI.Exception, match="room") as told:
                receive()
            assert told.value.Get_error_class() == MPI.ERR_TRUNCATE
        assert world.recv(source=1) == "next"


def what_is_cancelled_receives_nothing() -> None:
    if rank == 0:
        room = np.zeros(1, int)
        request = world.Irecv(room, 1, 3)
        request.Cancel()
        request.Wait(status)
        assert status.Is_cancelled()
        world.Barrier()
        world.Recv(other := np.zeros(1, int), 1, 3)
        assert (room[0], other[0]) == (0, 33)
    else:
        world.Barrier()
        if rank == 1:
            world.Send(np.array([33]), 0, 3)


def a_large_object_comes_as_one_message() -> None:
    thing = {"array": np.arange(300_000), "rank": rank}
    got = world.sendrecv(thing, (rank + 1) % size, 0, None, (rank - 1) % size, 0, status)
    assert got["rank"] == (rank - 1) % size
    assert (got["array"] == thing["array"]).all()
    assert status.count == len(pickle.dumps(got, 5)), (status.count, status.source)


def what_is_sent_and_received_at_once_tells_of_the_receive() -> None:
    """And where it cannot send, it receives nothing either."""
    after, before = (rank + 1) % size, (rank - 1) % size
    for dest, tag, code in ((size, 0, MPI.ERR_RANK), (after, 2**31, MPI.ERR_TAG), (after, -5, MPI.ERR_TAG)):
        with pytest.raises(MPI.Exception) as told:
            world.Sendrecv(np.ones(1), dest, tag, np.zeros(9), before)
        assert told.value.Get_error_class() == code
    mine, got = np.full(rank + 1, rank), np.zeros(9, int)
    calls: tuple[Callable[[], object], ...] = (
        lambda: world.Sendrecv(mine, after, rank, got, before, MPI.ANY_TAG, status),
        lambda: world.Isendrecv(mine, after, rank, got, before).Wait(status),
    )
    for call in calls:
        call()
        assert (status.source, status.tag, status.Get_count(MPI.LONG)) == (before, before, before + 1)
        assert (got[: before + 1] == before).all()
    world.Sendrecv_replace(mine[:1], after, rank, before, MPI.ANY_TAG, status)
    assert (mine[0], status.source, status.tag, status.Get_count(MPI.LONG)) == (before, before, before, 1)


def ranks_and_tags_that_are_none_are_told() -> None:
    wrong: tuple[tuple[Callable[[], object], int], ...] = (
        (lambda: world.Send(b"", size), MPI.ERR_RANK),
        (lambda: world.Recv(bytearray(1), -7), MPI.ERR_RANK),
        (lambda: world.Send(b"", 0, -3), MPI.ERR_TAG),
        (lambda: MPI.COMM_NULL.Send(b"", 0), MPI.ERR_COMM),
        (lambda: MPI.REQUEST_NULL.Cancel(), MPI.ERR_REQUEST),
    )
    for call, code in wrong:
        with pytest.raises(MPI.Exception) as told:
            call()
        assert told.value.Get_error_class() == code


def what_is_lacking_is_named() -> None:
    for name in ("Spawn", "Connect", "Accept"):
        assert not hasattr(world, name)
        with pytest.raises(NotImplementedError, match=name):
            getattr(world, name)
    with pytest.raises(NotImplementedError, match="Psend_init"):
        world.Psend_init(b"", 1, 0)


def groups_are_made_by_some_and_joined() -> None:
    if rank > 0:
        group = world.Get_group().Excl([0])
        both = [world.Create_group(group, tag) for tag in (1, 1, 2)]
        assert [comm.allreduce(comm.rank) for comm in both] == [1, 1, 1]
        for comm in both:
            comm.Free()
    half = world.Split(rank > 0)
    other = 1 if rank == 0 else 0
    mine = world.Isend(np.array([rank]), other) if rank < 2 else MPI.REQUEST_NULL
    inter = cast(MPI.Intracomm, half).Create_intercomm(0, world, other)
    if rank < 2:  # what is sent meanwhile stays apart from what the leaders tell each other
        world.Recv(come := np.zeros(1, int))
        assert come[0] == other
    mine.Wait()
    with pytest.raises(MPI.Exception, match="ranks in common"):
        MPI.COMM_SELF.Create_intercomm(0, world, rank)
    with pytest.raises(MPI.Exception, match="3 is no rank"):
        MPI.COMM_SELF.Create_intercomm(0, world, size)
    assert (inter.size, inter.remote_size) == ((1, 2) if rank == 0 else (2, 1))
    if rank == 0:
        for _ in range(2):
            assert inter.recv(status=status) == f"from {status.source}"
    else:
        inter.send(f"from {inter.rank}", 0)
    assert inter.Merge(rank == 0).rank == (rank - 1) % size


def what_is_under_way_when_its_communicator_is_freed_goes_on() -> None:
    comm = world.Dup()
    after, before = (rank + 1) % size, (rank - 1) % size
    come, late, total = np.zeros(1, int), np.zeros(1 << 18), np.zeros(1, int)
    first = comm.Irecv(come, before, 1)
    comm.Send(np.array([rank]), after, 1)
    while not first.Get_status():
        pass
    requests = [
        first,
        comm.Irecv(late, before, 2),
        comm.Isend(np.full(1 << 18, rank + 1.0), after, 2),
        comm.Iallreduce(np.ones(1, int), total),
        comm.Irecv(bytearray(1), before, 3),
    ]
    comm.Free()
    assert not comm
    requests[-1].Cancel()
    statuses: list[MPI.Status] = []
    MPI.Request.Waitall(requests, statuses)
    assert [s.source for s in statuses[:2]] == [before, before]
    assert (come[0], late[-1], total[0]) == (before, before + 1, size)
    left = world.Dup()
    request = left.Irecv(come, before)
    left.Send(np.array([rank + 10]), after)
    left.Disconnect()
    assert come[0] == before + 10
    assert request.Test(status)
    assert status.source == before


def what_a_freed_request_stood_for_arrives() -> None:
    """Or it cannot be freed yet."""
    own, gaps = MPI.COMM_SELF, MPI.BYTE.Create_vector(2, 1, 2)
    request = own.Irecv([room := bytearray(3), 1, gaps])
    with pytest.raises(NotImplementedError, match="gaps"):
        request.Free()
    own.Send(b"ab", 0)
    while not request.Get_status():
        pass
    request.Free()
    assert bytes(room) == b"a\0b"
    assert not request
    plain = own.Irecv(near := bytearray(2))
    plain.Free()
    own.Send(b"ab", 0)
    while near != b"ab":
        time.sleep(0.001)


def an_error_handler_is_called_first() -> None:
    codes = []
    comm = MPI.COMM_SELF.Dup()
    comm.Set_errhandler(MPI.Comm.Create_errhandler(lambda where, code: codes.append((where == comm, code))))
    with pytest.raises(MPI.Exception):
        comm.Send(b"", 5)
    assert codes == [(True, MPI.ERR_RANK)]


def asking_after_many_is_quick() -> None:
    requests = [MPI.COMM_SELF.Irecv(bytearray(1), tag=tag) for tag in range(300)]
    took = []
    for ask in (MPI.Request.Testany, MPI.Request.Testsome, MPI.Request.Get_status_any) * 3:
        began = time.perf_counter()
        ask(requests)
        took.append(time.perf_counter() - began)
    assert min(took) < 0.02, took
    MPI.COMM_SELF.Send(b"x", 0, 200)
    assert MPI.Request.Waitsome(requests) == [200]
    for request in requests:
        if request:
            request.Cancel()
    MPI.Request.Waitall(requests)


def several_are_waited_for_while_a_thread_finishes_one() -> None:
    mine = MPI.Grequest.Start()
    threading.Timer(0.05, mine.complete, ["done"]).start()
    never = MPI.COMM_SELF.irecv(tag=9)
    assert MPI.Request.waitany([never, mine]) == (1, "done")
    never.cancel()
    never.wait(status)
    assert status.Is_cancelled()


for check in list(vars(sys.modules[__name__]).values()):
    if getattr(check, "__module__", "") == __name__ and callable(check):
        check()
        world.Barrier()
key = MPI.Comm.Create_keyval(delete_fn=lambda comm, key, value: print(value, flush=True))
MPI.COMM_SELF.Set_attr(key, "all is well")  # which Finalize, at the end, tells
