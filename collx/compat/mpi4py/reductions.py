"""The collectives that reduce, made ready: by collx where it has op and datatype, else gathered and combined here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from collx.communicator import Communicator
from collx.compat.mpi4py.context import Ranked, number
from collx.compat.mpi4py.layout import Bytes
from collx.compat.mpi4py.memory import in_place
from collx.compat.mpi4py.moves import Move, _at_root, exchange, group_of
from collx.compat.mpi4py.op import Op, Operator, operator_of
from collx.compat.mpi4py.specification import Message, message

Numbers = np.ndarray[Any, Any]


def allreduce(comm: Ranked, sendbuf: Any, recvbuf: Any, op: Op) -> Move:
    ranks = group_of(comm, "Allreduce")
    return _everywhere(ranks, ranks.all_reduce, sendbuf, recvbuf, op, range(ranks.size))


def reduce(comm: Ranked, sendbuf: Any, recvbuf: Any, op: Op, root: int) -> Move:
    ranks, operator, root = group_of(comm, "Reduce"), operator_of(op), number(root)
    if not _at_root(ranks, root):
        going = message(sendbuf)
        if name := operator.native(going.kind.dtype):
            called, data = name, _numbers(going)
            return Move(lambda **how: ranks.reduce(data, called, root, **how))
        packed = going.data()
        return Move(lambda **how: ranks.gather(packed, root, **how))
    coming = message(recvbuf, writable=True)
    going = _going(sendbuf, coming)
    if name := operator.native(coming.kind.dtype):
        data, out = _numbers(going), _result(coming)
        return Move(lambda **how: ranks.reduce(data, name, root, out=out, **how), _unless_there(coming, out))
    packed, rows = going.data(), np.empty((ranks.size, going.nbytes), np.uint8)
    return Move(
        lambda **how: ranks.gather(packed, root, out=rows.reshape(-1), **how),
        lambda: coming.put(_fold(operator, list(rows), coming)),
    )


def scan(comm: Ranked, sendbuf: Any, recvbuf: Any, op: Op) -> Move:
    ranks = group_of(comm, "Scan")
    return _everywhere(ranks, ranks.scan, sendbuf, recvbuf, op, range(ranks.rank + 1))


def exscan(comm: Ranked, sendbuf: Any, recvbuf: Any, op: Op) -> Move:
    """What rank 0 has in `recvbuf` stays."""
    ranks, operator = group_of(comm, "Exscan"), operator_of(op)
    coming = message(recvbuf, writable=True)
    going = _going(sendbuf, coming)
    if name := operator.native(coming.kind.dtype):
        data = _numbers(going)
        out = np.empty_like(data) if ranks.rank == 0 else _result(coming)
        finish = None if ranks.rank == 0 else _unless_there(coming, out)
        return Move(lambda **how: ranks.exscan(data, name, out=out, **how), finish)
    return _folded(ranks, operator, going, coming, range(ranks.rank))


def reduce_scatter_block(comm: Ranked, sendbuf: Any, recvbuf: Any, op: Op) -> Move:
    ranks, operator = group_of(comm, "Reduce_scatter_block"), operator_of(op)
    if in_place(sendbuf):
        coming = message(recvbuf, writable=True, blocks=ranks.size)
        going = coming.times(ranks.size)
    else:
        coming = message(recvbuf, writable=True)
        each = message(sendbuf, blocks=ranks.size)
        _agree(each, coming)
        going = each.times(ranks.size)
    return _scattered(ranks, operator, going, coming, [coming.count] * ranks.size, in_place(sendbuf))


def reduce_scatter(comm: Ranked, sendbuf: Any, recvbuf: Any, recvcounts: Sequence[int] | None, op: Op) -> Move:
    ranks, operator = group_of(comm, "Reduce_scatter"), operator_of(op)
    coming = message(recvbuf, writable=True)
    if recvcounts is not None:
        counts = [int(count) for count in recvcounts]
        if len(counts) != ranks.size:
            raise ValueError(f"message: expecting {ranks.size} items, got {len(counts)}")
    elif in_place(sendbuf):
        raise TypeError("Reduce_scatter in place needs recvcounts")
    else:
        counts = counts_of(comm, recvbuf)
    if in_place(sendbuf):
        going = coming
        if going.count != sum(counts):
            raise ValueError(f"mismatch in receive count {going.count} and sum(counts) {sum(counts)}")
        coming = Message(going.base, going.offset, counts[ranks.rank], going.kind)
    else:
        going = message(sendbuf)
        if going.count != sum(counts):
            raise ValueError(f"mismatch in send count {going.count} and sum(counts) {sum(counts)}")
        _agree(Message(going.base, going.offset, counts[ranks.rank], going.kind), coming)
    return _scattered(ranks, operator, going, coming, counts, in_place(sendbuf))


def counts_of(comm: Ranked, recvbuf: Any) -> list[int]:
    """How many elements each rank has room for. Collective."""
    counts: list[int] = comm._ranks.all_gather(np.array([message(recvbuf, writable=True).count])).tolist()
    return counts


def _scattered(
    ranks: Communicator, operator: Operator, going: Message, coming: Message, counts: list[int], there: bool
) -> Move:
    if name := operator.native(coming.kind.dtype):
        data = _numbers(going)
        out = np.empty(coming.count, data.dtype) if there else _result(coming)
        return Move(
            lambda **how: ranks.reduce_scatter(data, name, counts=counts, out=out, **how), _unless_there(coming, out)
        )
    size = going.kind.size
    rows, mine = np.empty((ranks.size, coming.nbytes), np.uint8), [coming.nbytes] * ranks.size
    start = exchange(ranks, going.data(), [count * size for count in counts], rows.reshape(-1), mine)
    return Move(start, lambda: coming.put(_fold(operator, list(rows), coming)))


def _everywhere(
    ranks: Communicator, collective: Callable[..., Any], sendbuf: Any, recvbuf: Any, op: Op, taken: range
) -> Move:
    """A reduction of the ranks `taken`, by `collective` where it has the op."""
    operator = operator_of(op)
    coming = message(recvbuf, writable=True)
    going = _going(sendbuf, coming)
    if name := operator.native(coming.kind.dtype):
        data, out = _numbers(going), _result(coming)
        return Move(lambda **how: collective(data, name, out=out, **how), _unless_there(coming, out))
    return _folded(ranks, operator, going, coming, taken)


def _folded(ranks: Communicator, operator: Operator, going: Message, coming: Message, taken: range) -> Move:
    """All ranks' contributions, of which those of the ranks `taken` count."""
    packed, rows = going.data(), np.empty((ranks.size, going.nbytes), np.uint8)

    def finish() -> None:
        if taken:
            coming.put(_fold(operator, [rows[rank] for rank in taken], coming))

    return Move(lambda **how: ranks.all_gather(packed, out=rows.reshape(-1), **how), finish)


def _fold(operator: Operator, rows: list[Bytes], like: Message) -> Bytes:
    """The rows combined in rank order, from the last to the first."""
    result = rows[-1].copy()
    for row in reversed(rows[:-1]):
        operator.combine(row, result, like.kind, like.count)
    return result


def _going(sendbuf: Any, coming: Message) -> Message:
    if in_place(sendbuf):
        return coming
    going = message(sendbuf)
    _agree(going, coming)
    return going


def _agree(going: Message, coming: Message) -> None:
    if going.kind is not coming.kind:
        raise ValueError("mismatch in send and receive MPI datatypes")
    if going.count != coming.count:
        raise ValueError(f"mismatch in send count {going.count} and receive count {coming.count}")


def _numbers(one: Message) -> Numbers:
    """The elements, for collx to read, aligned or not."""
    assert one.kind.dtype is not None
    return one.data().view(one.kind.dtype)


def _result(coming: Message) -> Numbers:
    """Where collx may write the elements."""
    assert coming.kind.dtype is not None
    view = coming.view()
    if view is not None:
        numbers = view.view(coming.kind.dtype)
        if numbers.flags.aligned:
            return numbers
    return np.empty(coming.count, coming.kind.dtype)


def _unless_there(coming: Message, out: Numbers) -> Any:
    """What brings the result to its place, where it is not there already."""
    view = coming.view()
    if view is not None and (not len(view) or np.may_share_memory(view, out)):
        return None
    return lambda: coming.put(out.view(np.uint8))
