"""The collectives that move data, made ready: what collx is to do, and what follows on this rank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from collx.communicator import Communicator
from collx.compat.mpi4py import constants, errors
from collx.compat.mpi4py.context import Ranked, number
from collx.compat.mpi4py.layout import Bytes
from collx.compat.mpi4py.memory import in_place
from collx.compat.mpi4py.specification import NOTHING, Message, Vector, message, vector, vector_w
from collx.work import Work


class Move(NamedTuple):
    """A collective made ready: `start(async_op=...)`, of collx, then `finish`, which puts what came in its place."""

    start: Callable[..., Any]
    finish: Callable[[], None] | None = None

    def run(self) -> None:
        self.start()
        if self.finish is not None:
            self.finish()

    def begin(self) -> Work:
        work: Work = self.start(async_op=True)
        return work


def group_of(comm: Ranked, what: str) -> Communicator:
    """Its ranks, where it is of one group. Raises NotImplementedError for an intercommunicator."""
    ranks = comm._ranks
    if comm._context.remote is not None:
        raise NotImplementedError(f"MPI.Intercomm.{what} is not in collx's shim of mpi4py")
    return ranks


def barrier(comm: Ranked) -> Move:
    return Move(comm._ranks.barrier)


def bcast(comm: Ranked, buf: Any, root: int) -> Move:
    ranks, root = group_of(comm, "Bcast"), number(root)
    sends = _at_root(ranks, root)
    whole = message(buf, writable=not sends)
    data, finish = (whole.data(), None) if sends else _room(whole)
    return Move(lambda **how: ranks.broadcast(data, root, **how), finish)


def gather(comm: Ranked, sendbuf: Any, recvbuf: Any, root: int) -> Move:
    ranks, root = group_of(comm, "Gather"), number(root)
    if not _at_root(ranks, root):
        data = message(sendbuf).data()
        return Move(lambda **how: ranks.gather(data, root, **how))
    each = message(recvbuf, writable=True, blocks=ranks.size)
    out, finish = _room(each.times(ranks.size))
    data = _own(sendbuf, each, ranks.rank, out)
    return Move(lambda **how: ranks.gather(data, root, out=out, **how), finish)


def scatter(comm: Ranked, sendbuf: Any, recvbuf: Any, root: int) -> Move:
    ranks, root = group_of(comm, "Scatter"), number(root)
    if not _at_root(ranks, root):
        out, finish = _room(message(recvbuf, writable=True))
        return Move(lambda **how: ranks.scatter(None, root, out=out, **how), finish)
    each = message(sendbuf, blocks=ranks.size)
    data = each.times(ranks.size).data()
    if in_place(recvbuf):
        out, finish = np.empty(each.nbytes, np.uint8), None
    else:
        out, finish = _room(message(recvbuf, writable=True))
    return Move(lambda **how: ranks.scatter(data, root, out=out, **how), finish)


def gatherv(comm: Ranked, sendbuf: Any, recvbuf: Any, root: int) -> Move:
    """As an all-to-all in which all send to the root: each rank knows its own counts, and only these."""
    ranks, root = group_of(comm, "Gatherv"), number(root)
    none = Vector([])
    if not _at_root(ranks, root):
        return _exchange(ranks, _only(message(sendbuf), root, ranks.size), none)
    coming = vector(recvbuf, ranks.size, writable=True)
    if in_place(sendbuf):
        here = coming.parts[root]
        coming.parts[root] = Message(here.base, here.offset, 0, here.kind)
        return _exchange(ranks, none, coming)
    return _exchange(ranks, _only(message(sendbuf), root, ranks.size), coming)


def scatterv(comm: Ranked, sendbuf: Any, recvbuf: Any, root: int) -> Move:
    ranks, root = group_of(comm, "Scatterv"), number(root)
    none = Vector([])
    if not _at_root(ranks, root):
        return _exchange(ranks, none, _only(message(recvbuf, writable=True), root, ranks.size))
    going = vector(sendbuf, ranks.size)
    if in_place(recvbuf):
        here = going.parts[root]
        going.parts[root] = Message(here.base, here.offset, 0, here.kind)
        return _exchange(ranks, going, none)
    return _exchange(ranks, going, _only(message(recvbuf, writable=True), root, ranks.size))


def allgather(comm: Ranked, sendbuf: Any, recvbuf: Any) -> Move:
    ranks = group_of(comm, "Allgather")
    each = message(recvbuf, writable=True, blocks=ranks.size)
    out, finish = _room(each.times(ranks.size))
    data = _own(sendbuf, each, ranks.rank, out)
    return Move(lambda **how: ranks.all_gather(data, out=out, **how), finish)


def allgatherv(comm: Ranked, sendbuf: Any, recvbuf: Any) -> Move:
    ranks = group_of(comm, "Allgatherv")
    coming = vector(recvbuf, ranks.size, writable=True)
    out, finish = _room(coming)
    counts = coming.counts
    data = coming.parts[ranks.rank].data() if in_place(sendbuf) else message(sendbuf).data()
    if in_place(sendbuf) and finish is None:
        begin = sum(counts[: ranks.rank])
        data = out[begin : begin + counts[ranks.rank]]
    return Move(lambda **how: ranks.all_gather(data, counts=counts, out=out, **how), finish)


def alltoall(comm: Ranked, sendbuf: Any, recvbuf: Any) -> Move:
    ranks = group_of(comm, "Alltoall")
    coming = message(recvbuf, writable=True, blocks=ranks.size).times(ranks.size)
    out, finish = _room(coming)
    going = coming if in_place(sendbuf) else message(sendbuf, blocks=ranks.size).times(ranks.size)
    data = going.data().copy() if going is coming else going.data()
    return Move(lambda **how: ranks.all_to_all(data, out=out, **how), finish)


def alltoallv(comm: Ranked, sendbuf: Any, recvbuf: Any) -> Move:
    ranks = group_of(comm, "Alltoallv")
    coming = vector(recvbuf, ranks.size, writable=True)
    return _exchange(ranks, coming if in_place(sendbuf) else vector(sendbuf, ranks.size), coming)


def alltoallw(comm: Ranked, sendbuf: Any, recvbuf: Any) -> Move:
    ranks = group_of(comm, "Alltoallw")
    coming = vector_w(recvbuf, ranks.size, writable=True)
    return _exchange(ranks, coming if in_place(sendbuf) else vector_w(sendbuf, ranks.size), coming)


def exchange(
    ranks: Communicator, going: Bytes, lengths: list[int], out: Bytes, expected: list[int]
) -> Callable[..., Any]:
    """An all-to-all of so many bytes for, and from, each rank."""
    return lambda **how: ranks.all_to_all(going, send_counts=lengths, recv_counts=expected, out=out, **how)


def _exchange(ranks: Communicator, going: Vector, coming: Vector) -> Move:
    none = [0] * ranks.size
    out, finish = _room(coming)
    data = going.data().copy() if going is coming else going.data()
    return Move(exchange(ranks, data, going.counts or none, out, coming.counts or none), finish)


def _only(one: Message, rank: int, size: int) -> Vector:
    """Nothing for any rank but this."""
    nothing = Message(NOTHING, 0, 0, one.kind)
    return Vector([one if other == rank else nothing for other in range(size)])


def _room(coming: Message | Vector) -> tuple[Bytes, Callable[[], None] | None]:
    """Where collx may write what comes, and what brings it from there to its place, where it is not that already."""
    view = coming.view()
    if view is not None:
        return view, None
    room = np.empty(coming.nbytes if isinstance(coming, Message) else sum(coming.counts), np.uint8)
    return room, lambda: coming.put(room)


def _own(sendbuf: Any, each: Message, rank: int, out: Bytes) -> Bytes:
    """What this rank contributes to what is gathered in `out`."""
    if not in_place(sendbuf):
        return message(sendbuf).data()
    own = out[rank * each.nbytes : (rank + 1) * each.nbytes]
    if not each.kind.dense:
        own[:] = each.block(rank).data()
    return own


def _at_root(ranks: Communicator, root: int) -> bool:
    if not 0 <= root < ranks.size:
        raise errors.Exception(constants.ERR_ROOT, f"root {root} is no rank of {ranks.size}")
    return ranks.rank == root
