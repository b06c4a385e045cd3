"""The collectives that go on while the program does something else, and those that it starts again and again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from collx.compat.mpi4py import moves, reductions
from collx.compat.mpi4py.context import Part
from collx.compat.mpi4py.failures import Failure
from collx.compat.mpi4py.info import INFO_NULL, Info
from collx.compat.mpi4py.memory import in_place
from collx.compat.mpi4py.moves import Move
from collx.compat.mpi4py.op import SUM, Op
from collx.compat.mpi4py.operation import Operation, Persistent, Transfer
from collx.compat.mpi4py.request import Prequest, Request
from collx.errors import CollxError


class Beginning(Part):
    """How a collective is begun: collx does it in the background, and `finish` follows when it is waited for."""

    def _begin(self, move: Move) -> Request:
        return Request._of(self._begun(move))

    def _begun(self, move: Move) -> Operation:
        try:
            work = move.begin()
        except CollxError as error:
            self._fail(Failure(error), error)
        finish, fail = move.finish, self._lasting()._fail
        return Transfer(work, None if finish is None else lambda *_: finish(), None, fail, finish is not None)

    def _prepare(self, ready: Callable[[], Move]) -> Prequest:
        ready()  # so that what is wrong is said at once
        return Prequest._of(Persistent(lambda: self._begun(ready())))


class Nonblocking(Beginning):
    """What Comm has of these."""

    def Ibarrier(self) -> Request:
        return self._begin(moves.barrier(self))

    def Ibcast(self, buf: Any, root: int = 0) -> Request:
        return self._begin(moves.bcast(self, buf, root))

    def Igather(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> Request:
        return self._begin(moves.gather(self, sendbuf, recvbuf, root))

    def Igatherv(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> Request:
        return self._begin(moves.gatherv(self, sendbuf, recvbuf, root))

    def Iscatter(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> Request:
        return self._begin(moves.scatter(self, sendbuf, recvbuf, root))

    def Iscatterv(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> Request:
        return self._begin(moves.scatterv(self, sendbuf, recvbuf, root))

    def Iallgather(self, sendbuf: Any, recvbuf: Any) -> Request:
        return self._begin(moves.allgather(self, sendbuf, recvbuf))

    def Iallgatherv(self, sendbuf: Any, recvbuf: Any) -> Request:
        return self._begin(moves.allgatherv(self, sendbuf, recvbuf))

    def Ialltoall(self, sendbuf: Any, recvbuf: Any) -> Request:
        return self._begin(moves.alltoall(self, sendbuf, recvbuf))

    def Ialltoallv(self, sendbuf: Any, recvbuf: Any) -> Request:
        return self._begin(moves.alltoallv(self, sendbuf, recvbuf))

    def Ialltoallw(self, sendbuf: Any, recvbuf: Any) -> Request:
        return self._begin(moves.alltoallw(self, sendbuf, recvbuf))

    def Ireduce(self, sendbuf: Any, recvbuf: Any, op: Op = SUM, root: int = 0) -> Request:
        return self._begin(reductions.reduce(self, sendbuf, recvbuf, op, root))

    def Iallreduce(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> Request:
        return self._begin(reductions.allreduce(self, sendbuf, recvbuf, op))

    def Ireduce_scatter_block(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> Request:
        return self._begin(reductions.reduce_scatter_block(self, sendbuf, recvbuf, op))

    def Ireduce_scatter(
        self, sendbuf: Any, recvbuf: Any, recvcounts: Sequence[int] | None = None, op: Op = SUM
    ) -> Request:
        return self._begin(reductions.reduce_scatter(self, sendbuf, recvbuf, recvcounts, op))


class Prepared(Beginning):
    """What Comm has of persistent ones."""

    def Barrier_init(self, info: Info = INFO_NULL) -> Prequest:
        return self._prepare(lambda: moves.barrier(self))

    def Bcast_init(self, buf: Any, root: int = 0, info: Info = INFO_NULL) -> Prequest:
        return self._prepare(lambda: moves.bcast(self, buf, root))

    def Gather_init(self, sendbuf: Any, recvbuf: Any, root: int = 0, info: Info = INFO_NULL) -> Prequest:
        return self._prepare(lambda: moves.gather(self, sendbuf, recvbuf, root))

    def Gatherv_init(self, sendbuf: Any, recvbuf: Any, root: int = 0, info: Info = INFO_NULL) -> Prequest:
        return self._prepare(lambda: moves.gatherv(self, sendbuf, recvbuf, root))

    def Scatter_init(self, sendbuf: Any, recvbuf: Any, root: int = 0, info: Info = INFO_NULL) -> Prequest:
        return self._prepare(lambda: moves.scatter(self, sendbuf, recvbuf, root))

    def Scatterv_init(self, sendbuf: Any, recvbuf: Any, root: int = 0, info: Info = INFO_NULL) -> Prequest:
        return self._prepare(lambda: moves.scatterv(self, sendbuf, recvbuf, root))

    def Allgather_init(self, sendbuf: Any, recvbuf: Any, info: Info = INFO_NULL) -> Prequest:
        return self._prepare(lambda: moves.allgather(self, sendbuf, recvbuf))

    def Allgatherv_init(self, sendbuf: Any, recvbuf: Any, info: Info = INFO_NULL) -> Prequest:
        return self._prepare(lambda: moves.allgatherv(self, sendbuf, recvbuf))

    def Alltoall_init(self, sendbuf: Any, recvbuf: Any, info: Info = INFO_NULL) -> Prequest:
        return self._prepare(lambda: moves.alltoall(self, sendbuf, recvbuf))

    def Alltoallv_init(self, sendbuf: Any, recvbuf: Any, info: Info = INFO_NULL) -> Prequest:
        return self._prepare(lambda: moves.alltoallv(self, sendbuf, recvbuf))

    def Alltoallw_init(self, sendbuf: Any, recvbuf: Any, info: Info = INFO_NULL) -> Prequest:
        return self._prepare(lambda: moves.alltoallw(self, sendbuf, recvbuf))

    def Reduce_init(self, sendbuf: Any, recvbuf: Any, op: Op = SUM, root: int = 0, info: Info = INFO_NULL) -> Prequest:
        return self._prepare(lambda: reductions.reduce(self, sendbuf, recvbuf, op, root))

    def Allreduce_init(self, sendbuf: Any, recvbuf: Any, op: Op = SUM, info: Info = INFO_NULL) -> Prequest:
        return self._prepare(lambda: reductions.allreduce(self, sendbuf, recvbuf, op))

    def Reduce_scatter_block_init(self, sendbuf: Any, recvbuf: Any, op: Op = SUM, info: Info = INFO_NULL) -> Prequest:
        return self._prepare(lambda: reductions.reduce_scatter_block(self, sendbuf, recvbuf, op))

    def Reduce_scatter_init(
        self, sendbuf: Any, recvbuf: Any, recvcounts: Sequence[int] | None = None, op: Op = SUM, info: Info = INFO_NULL
    ) -> Prequest:
        if recvcounts is None and not in_place(sendbuf):
            recvcounts = reductions.counts_of(self, recvbuf)  # now, as Start is not to wait for others
        return self._prepare(lambda: reductions.reduce_scatter(self, sendbuf, recvbuf, recvcounts, op))


class BegunScans(Beginning):
    """What Intracomm has beside these."""

    def Iscan(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> Request:
        return self._begin(reductions.scan(self, sendbuf, recvbuf, op))

    def Iexscan(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> Request:
        return self._begin(reductions.exscan(self, sendbuf, recvbuf, op))

    def Scan_init(self, sendbuf: Any, recvbuf: Any, op: Op = SUM, info: Info = INFO_NULL) -> Prequest:
        return self._prepare(lambda: reductions.scan(self, sendbuf, recvbuf, op))

    def Exscan_init(self, sendbuf: Any, recvbuf: Any, op: Op = SUM, info: Info = INFO_NULL) -> Prequest:
        return self._prepare(lambda: reductions.exscan(self, sendbuf, recvbuf, op))
