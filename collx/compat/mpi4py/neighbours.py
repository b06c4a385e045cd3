"""Collectives among neighbours: each rank with those that its topology joins it with.

Of several messages between two ranks the first is for what comes first in the other's list of neighbours. On a grid
what goes down a dimension comes from above, and the other way round, though both be the same rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from collx.communicator import Communicator
from collx.compat.mpi4py import pickling
from collx.compat.mpi4py.collectives import Collectives
from collx.compat.mpi4py.constants import CART
from collx.compat.mpi4py.info import INFO_NULL, Info
from collx.compat.mpi4py.layout import Bytes
from collx.compat.mpi4py.moves import Move, exchange
from collx.compat.mpi4py.nonblocking import Beginning
from collx.compat.mpi4py.request import Prequest, Request
from collx.compat.mpi4py.specification import Message, Vector, message, vector, vector_w


class Neighbours(Collectives, Beginning):
    """What Topocomm has of them."""

    def _allgather(self, sendbuf: Any, recvbuf: Any) -> Move:
        ins, outs = self.inoutedges
        return self._between([message(sendbuf)] * len(outs), _blocks(recvbuf, len(ins), True))

    def _allgatherv(self, sendbuf: Any, recvbuf: Any) -> Move:
        ins, outs = self.inoutedges
        return self._between([message(sendbuf)] * len(outs), vector(recvbuf, len(ins), True).parts)

    def _alltoall(self, sendbuf: Any, recvbuf: Any) -> Move:
        ins, outs = self.inoutedges
        return self._between(_blocks(sendbuf, len(outs)), _blocks(recvbuf, len(ins), True))

    def _alltoallv(self, sendbuf: Any, recvbuf: Any) -> Move:
        ins, outs = self.inoutedges
        return self._between(vector(sendbuf, len(outs)).parts, vector(recvbuf, len(ins), True).parts)

    def _alltoallw(self, sendbuf: Any, recvbuf: Any) -> Move:
        ins, outs = self.inoutedges
        return self._between(vector_w(sendbuf, len(outs)).parts, vector_w(recvbuf, len(ins), True).parts)

    def _between(self, going: list[Message], coming: list[Message]) -> Move:
        ins, outs = self.inoutedges
        across = int(self._topology.kind == CART)  # of the two edges of a dimension, the other
        parts = [coming[edge] for edge in _by_rank(ins, across)]
        lengths = _lengths(self._ranks, ins, [part.nbytes for part in coming])
        room = np.empty(sum(lengths), np.uint8)
        data = Vector([going[edge] for edge in _by_rank(outs)]).data()
        sizes = _lengths(self._ranks, outs, [part.nbytes for part in going])
        return Move(exchange(self._ranks, data, sizes, room, lengths), lambda: Vector(parts).put(room))

    def Neighbor_allgather(self, sendbuf: Any, recvbuf: Any) -> None:
        self._run(self._allgather(sendbuf, recvbuf))

    def Neighbor_allgatherv(self, sendbuf: Any, recvbuf: Any) -> None:
        self._run(self._allgatherv(sendbuf, recvbuf))

    def Neighbor_alltoall(self, sendbuf: Any, recvbuf: Any) -> None:
        self._run(self._alltoall(sendbuf, recvbuf))

    def Neighbor_alltoallv(self, sendbuf: Any, recvbuf: Any) -> None:
        self._run(self._alltoallv(sendbuf, recvbuf))

    def Neighbor_alltoallw(self, sendbuf: Any, recvbuf: Any) -> None:
        self._run(self._alltoallw(sendbuf, recvbuf))

    def Ineighbor_allgather(self, sendbuf: Any, recvbuf: Any) -> Request:
        return self._begin(self._allgather(sendbuf, recvbuf))

    def Ineighbor_allgatherv(self, sendbuf: Any, recvbuf: Any) -> Request:
        return self._begin(self._allgatherv(sendbuf, recvbuf))

    def Ineighbor_alltoall(self, sendbuf: Any, recvbuf: Any) -> Request:
        return self._begin(self._alltoall(sendbuf, recvbuf))

    def Ineighbor_alltoallv(self, sendbuf: Any, recvbuf: Any) -> Request:
        return self._begin(self._alltoallv(sendbuf, recvbuf))

    def Ineighbor_alltoallw(self, sendbuf: Any, recvbuf: Any) -> Request:
        return self._begin(self._alltoallw(sendbuf, recvbuf))

    def Neighbor_allgather_init(self, sendbuf: Any, recvbuf: Any, info: Info = INFO_NULL) -> Prequest:
        return self._prepare(lambda: self._allgather(sendbuf, recvbuf))

    def Neighbor_allgatherv_init(self, sendbuf: Any, recvbuf: Any, info: Info = INFO_NULL) -> Prequest:
        return self._prepare(lambda: self._allgatherv(sendbuf, recvbuf))

    def Neighbor_alltoall_init(self, sendbuf: Any, recvbuf: Any, info: Info = INFO_NULL) -> Prequest:
        return self._prepare(lambda: self._alltoall(sendbuf, recvbuf))

    def Neighbor_alltoallv_init(self, sendbuf: Any, recvbuf: Any, info: Info = INFO_NULL) -> Prequest:
        return self._prepare(lambda: self._alltoallv(sendbuf, recvbuf))

    def Neighbor_alltoallw_init(self, sendbuf: Any, recvbuf: Any, info: Info = INFO_NULL) -> Prequest:
        return self._prepare(lambda: self._alltoallw(sendbuf, recvbuf))

    def neighbor_allgather(self, sendobj: Any) -> list[Any]:
        """The objects of those that send to this rank, in their order."""
        return self._objects([pickling.dumped(sendobj)] * len(self.inoutedges[1]))

    def neighbor_alltoall(self, sendobj: list[Any]) -> list[Any]:
        """An object for each that this rank sends to, and the objects from those that send to it."""
        return self._objects([pickling.dumped(one) for one in sendobj])

    def _objects(self, going: list[Bytes]) -> list[Any]:
        ins, outs = self.inoutedges
        if len(going) != len(outs):
            raise ValueError(f"expecting {len(outs)} items, got {len(going)}")
        sizes = np.array([len(one) for one in going], np.int64)
        expected = np.zeros(len(ins), np.int64)
        self.Neighbor_alltoall(sizes, expected)
        coming = [np.empty(size, np.uint8) for size in expected]
        self._run(self._between([message(one) for one in going], [message(one, True) for one in coming]))
        return [None if edge < 0 else pickling.loaded(one) for edge, one in zip(ins, coming, strict=True)]


def _blocks(given: Any, blocks: int, writable: bool = False) -> list[Message]:
    each = message(given, writable, blocks=blocks)
    return [each.block(index) for index in range(blocks)]


def _by_rank(edges: Sequence[int], across: int = 0) -> list[int]:
    """The edges that lead anywhere, ordered by the rank at their end, then by `edge ^ across`."""
    return sorted((edge for edge, rank in enumerate(edges) if rank >= 0), key=lambda edge: (edges[edge], edge ^ across))


def _lengths(ranks: Communicator, edges: Sequence[int], nbytes: list[int]) -> list[int]:
    """Bytes for, or from, each rank."""
    found = [0] * ranks.size
    for rank, length in zip(edges, nbytes, strict=True):
        if rank >= 0:
            found[rank] += length
    return found
