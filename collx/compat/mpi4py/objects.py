"""The collectives on Python objects, which travel pickled: first how long they are, then they themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce as folded
from itertools import accumulate
from typing import Any

import numpy as np

from collx.communicator import Communicator
from collx.compat.mpi4py.collectives import Collectives
from collx.compat.mpi4py.context import number
from collx.compat.mpi4py.failures import Failure
from collx.compat.mpi4py.layout import Bytes
from collx.compat.mpi4py.moves import Move, _at_root, exchange, group_of
from collx.compat.mpi4py.op import SUM
from collx.compat.mpi4py.pickling import dumped, loaded
from collx.errors import CollxError

Combine = Callable[[Any, Any], Any]


class Objects(Collectives):
    """What Comm has of them. Reductions go from rank 0 up, by `op(lower, higher)`."""

    def barrier(self) -> None:
        self.Barrier()

    def bcast(self, obj: Any, root: int = 0) -> Any:
        """The root's object, on all ranks."""
        ranks, root = group_of(self, "bcast"), number(root)
        sends = _at_root(ranks, root)
        data = dumped(obj) if sends else None
        length = np.array([0 if data is None else len(data)])
        with self._context.lock("bcast"):
            self._do(lambda: ranks.broadcast(length, root))
            data = np.empty(int(length[0]), np.uint8) if data is None else data
            self._do(lambda: ranks.broadcast(data, root))
        return obj if sends else loaded(data)

    def gather(self, sendobj: Any, root: int = 0) -> list[Any] | None:
        """On the root the objects of all ranks."""
        ranks, root = group_of(self, "gather"), number(root)
        data, receives = dumped(sendobj), _at_root(ranks, root)
        lengths = self._do(lambda: ranks.gather(np.array([len(data)]), root))
        going = [len(data) if rank == root else 0 for rank in range(ranks.size)]
        coming = lengths.tolist() if receives else [0] * ranks.size
        found = self._exchanged(ranks, data, going, coming)
        return found if receives else None

    def scatter(self, sendobj: Sequence[Any] | None, root: int = 0) -> Any:
        """The root's objects, one for each rank; None there stands for as many of it."""
        ranks, root = group_of(self, "scatter"), number(root)
        length, data, going = np.zeros(1, np.int64), b"", [0] * ranks.size
        lengths = None
        if _at_root(ranks, root):
            data, lengths = _parts(sendobj, ranks.size)
            going = lengths.tolist()
        self._do(lambda: ranks.scatter(lengths, root, out=length))
        coming = [int(length[0]) if rank == root else 0 for rank in range(ranks.size)]
        return self._exchanged(ranks, np.frombuffer(data, np.uint8), going, coming)[root]

    def allgather(self, sendobj: Any) -> list[Any]:
        """The objects of all ranks."""
        ranks = group_of(self, "allgather")
        data = dumped(sendobj)
        lengths = self._do(lambda: ranks.all_gather(np.array([len(data)]))).tolist()
        return _loaded(self._do(lambda: ranks.all_gather(data, counts=lengths)), lengths)

    def alltoall(self, sendobj: Sequence[Any]) -> list[Any]:
        """An object for each rank, and one from each."""
        ranks = group_of(self, "alltoall")
        data, lengths = _parts(sendobj, ranks.size)
        coming = self._do(lambda: ranks.all_to_all(lengths)).tolist()
        return self._exchanged(ranks, np.frombuffer(data, np.uint8), lengths.tolist(), coming)

    def reduce(self, sendobj: Any, op: Combine = SUM, root: int = 0) -> Any:
        """On the root all ranks' objects combined."""
        objects = self.gather(sendobj, root)
        return None if objects is None else folded(op, objects)

    def allreduce(self, sendobj: Any, op: Combine = SUM) -> Any:
        """All ranks' objects combined."""
        return folded(op, self.allgather(sendobj))

    def _exchanged(self, ranks: Communicator, data: Bytes, going: list[int], coming: list[int]) -> list[Any]:
        out = np.empty(sum(coming), np.uint8)
        self._run(Move(exchange(ranks, data, going, out, coming)))
        return _loaded(out, coming)

    def _do(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except CollxError as error:
            self._fail(Failure(error), error)


class ObjectScans(Objects):
    """What Intracomm has beside these."""

    def scan(self, sendobj: Any, op: Combine = SUM) -> Any:
        """The objects of ranks 0 to this one combined."""
        return folded(op, self.allgather(sendobj)[: self.Get_rank() + 1])

    def exscan(self, sendobj: Any, op: Combine = SUM) -> Any:
        """The objects of the ranks before this one combined; None on rank 0."""
        before = self.allgather(sendobj)[: self.Get_rank()]
        return folded(op, before) if before else None


def _parts(objects: Sequence[Any] | None, size: int) -> tuple[bytes, np.ndarray[Any, np.dtype[np.int64]]]:
    """An object for each rank as bytes behind each other, and their lengths."""
    parts = [dumped(one).tobytes() for one in ([None] * size if objects is None else objects)]
    if len(parts) != size:
        raise ValueError(f"expecting {size} items, got {len(parts)}")
    return b"".join(parts), np.array([len(part) for part in parts], np.int64)


def _loaded(data: Bytes, lengths: list[int]) -> list[Any]:
    ends = list(accumulate(lengths, initial=0))
    return [loaded(data[ends[i] : ends[i + 1]]) if lengths[i] else None for i in range(len(lengths))]
