"""The blocking collectives of a communicator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from collx.compat.mpi4py import moves, reductions
from collx.compat.mpi4py.context import Part
from collx.compat.mpi4py.failures import Failure
from collx.compat.mpi4py.memory import in_place
from collx.compat.mpi4py.moves import Move
from collx.compat.mpi4py.op import SUM, Op, operator_of
from collx.errors import CollxError


class Collectives(Part):
    """What Comm has of collectives on buffers, that return when they are done."""

    def _run(self, move: Move) -> None:
        try:
            move.run()
        except CollxError as error:
            self._fail(Failure(error), error)

    def Barrier(self) -> None:
        self._run(moves.barrier(self))

    def Bcast(self, buf: Any, root: int = 0) -> None:
        self._run(moves.bcast(self, buf, root))

    def Gather(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
        self._run(moves.gather(self, sendbuf, recvbuf, root))

    def Gatherv(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
        self._run(moves.gatherv(self, sendbuf, recvbuf, root))

    def Scatter(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
        self._run(moves.scatter(self, sendbuf, recvbuf, root))

    def Scatterv(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
        self._run(moves.scatterv(self, sendbuf, recvbuf, root))

    def Allgather(self, sendbuf: Any, recvbuf: Any) -> None:
        self._run(moves.allgather(self, sendbuf, recvbuf))

    def Allgatherv(self, sendbuf: Any, recvbuf: Any) -> None:
        self._run(moves.allgatherv(self, sendbuf, recvbuf))

    def Alltoall(self, sendbuf: Any, recvbuf: Any) -> None:
        self._run(moves.alltoall(self, sendbuf, recvbuf))

    def Alltoallv(self, sendbuf: Any, recvbuf: Any) -> None:
        self._run(moves.alltoallv(self, sendbuf, recvbuf))

    def Alltoallw(self, sendbuf: Any, recvbuf: Any) -> None:
        self._run(moves.alltoallw(self, sendbuf, recvbuf))

    def Reduce(self, sendbuf: Any, recvbuf: Any, op: Op = SUM, root: int = 0) -> None:
        self._run(reductions.reduce(self, sendbuf, recvbuf, op, root))

    def Allreduce(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> None:
        if type(recvbuf) is np.ndarray and recvbuf.flags.carray and (in_place(sendbuf) or _alike(sendbuf, recvbuf)):
            name = operator_of(op).native(recvbuf.dtype)
            if name is not None:  # nothing but what collx takes as it is
                ranks, source = moves.group_of(self, "Allreduce"), recvbuf if in_place(sendbuf) else sendbuf
                return self._run(Move(lambda: ranks.all_reduce(source, name, out=recvbuf)))
        return self._run(reductions.allreduce(self, sendbuf, recvbuf, op))

    def Reduce_scatter_block(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> None:
        self._run(reductions.reduce_scatter_block(self, sendbuf, recvbuf, op))

    def Reduce_scatter(self, sendbuf: Any, recvbuf: Any, recvcounts: Sequence[int] | None = None, op: Op = SUM) -> None:
        self._run(reductions.reduce_scatter(self, sendbuf, recvbuf, recvcounts, op))


class Scans(Collectives):
    """What Intracomm has beside these."""

    def Scan(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> None:
        self._run(reductions.scan(self, sendbuf, recvbuf, op))

    def Exscan(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> None:
        self._run(reductions.exscan(self, sendbuf, recvbuf, op))


def _alike(one: Any, other: np.ndarray[Any, Any]) -> bool:
    return type(one) is np.ndarray and one.dtype == other.dtype and one.shape == other.shape and one.flags.c_contiguous
