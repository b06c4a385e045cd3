"""From a user's arguments to a call: one function per collective, which checks them and lays out input and output.

They take the rank and the size, then what the communicator's method of the same name takes, and raise ValueError,
TypeError or BufferError before anything is sent. `SHAPES` of docs/api.md is what they hold to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from collx.buffers import Buffer, for_input, for_output, where_of
from collx.checks import counts_of, rank_of
from collx.layout import Counts, elements_of, in_place, output, rows_of, shares, shares_around
from collx.request import Chosen, Request
from collx.types import Array, ReduceOp, Where, identity, reduce_op, supports

Op = str | ReduceOp


@dataclass(slots=True)
class Call:
    """A request bound to memory: addresses of input and output, and what the user gets. `keep` holds the memory.
    Before a run the source is loaded with `before`, if any, and the buffer of `fill`, if any, set to the value beside
    it."""

    request: Request
    source: int
    target: int
    result: Any
    keep: tuple[Buffer, ...]
    before: Callable[[Where | None], None] | None = None
    fill: tuple[Buffer, Array] | None = None

    @property
    def where(self) -> Where | None:
        """On which GPU, by the stream that is the caller's now; None on the CPU. Raises ValueError for two streams."""
        return where_of(self.keep)

    def prepare(self, where: Where | None) -> None:
        """What must be done before each run."""
        if self.before is not None:
            self.before(where)
        if self.fill is not None:
            buffer, value = self.fill
            buffer.kind.fill(buffer.array, value, where)


def all_reduce(
    rank: int, size: int, x: Any, op: Op = "sum", *, out: Any = None, algorithm: Chosen | None = None
) -> Call:
    source = for_input(x)
    reduction = _reduction(op, source)
    target = output(out, source.array.shape, source)
    inplace = in_place(source, target)
    request = _like_input("all_reduce", source, algorithm, reduction, inplace=inplace)
    return _call(request, source, target)


def scan(rank: int, size: int, x: Any, op: Op = "sum", *, out: Any = None, algorithm: Chosen | None = None) -> Call:
    source = for_input(x)
    reduction = _prefix_op("scan", op, source)
    target = output(out, source.array.shape, source)
    request = _like_input("scan", source, algorithm, reduction, inplace=in_place(source, target))
    return _call(request, source, target)


def exscan(rank: int, size: int, x: Any, op: Op = "sum", *, out: Any = None, algorithm: Chosen | None = None) -> Call:
    source = for_input(x)
    reduction = _prefix_op("exscan", op, source)
    target = output(out, source.array.shape, source)
    inplace = in_place(source, target)
    if rank > 0:
        return _call(_like_input("exscan", source, algorithm, reduction, inplace=inplace), source, target)
    # No schedule writes rank 0's result. In place it sends its input from a copy, as the result is written at once.
    source = for_input(x, private=True) if inplace else source
    call = _call(_like_input("exscan", source, algorithm, reduction), source, target)
    call.fill = (target, np.asarray(identity(reduction, source.array.dtype), source.array.dtype))
    return call


def reduce(
    rank: int, size: int, x: Any, op: Op = "sum", root: int = 0, *, out: Any = None, algorithm: Chosen | None = None
) -> Call:
    root = rank_of(root, size, "root")
    source = for_input(x)
    reduction = _reduction(op, source)
    target = output(out, source.array.shape, source) if rank == root else None
    inplace = target is not None and in_place(source, target)
    return _call(_like_input("reduce", source, algorithm, reduction, root, inplace), source, target)


def broadcast(rank: int, size: int, x: Any, root: int = 0, *, algorithm: Chosen | None = None) -> Call:
    root = rank_of(root, size, "root")
    buffer = for_input(x) if rank == root else for_output(x, "x")
    if not buffer.array.flags.writeable:  # an algorithm may write to the root what it has already
        buffer = for_input(x, private=True)
    call = _call(_like_input("broadcast", buffer, algorithm, None, root, inplace=True), buffer, buffer)
    call.result = x
    return call


def reduce_scatter(
    rank: int,
    size: int,
    x: Any,
    op: Op = "sum",
    *,
    counts: Counts = None,
    out: Any = None,
    algorithm: Chosen | None = None,
) -> Call:
    source = for_input(x)
    reduction = _reduction(op, source)
    rows, row = rows_of(source)
    parts = shares(counts, rows, size)
    target = output(out, (parts[rank], *row), source)
    elements = elements_of(parts, row)
    inplace = in_place(source, target, -sum(elements[:rank]) * source.array.itemsize)
    shape = row if reduction.function else ()
    dtype = source.array.dtype
    request = Request("reduce_scatter", elements, dtype, algorithm, reduction, inplace=inplace, shape=shape)
    return _call(request, source, target)


def all_gather(
    rank: int, size: int, x: Any, *, counts: Counts = None, out: Any = None, algorithm: Chosen | None = None
) -> Call:
    source = for_input(x)
    rows, row = rows_of(source)
    parts = shares_around(counts, rows, rank, size)
    target = output(out, (sum(parts), *row), source)
    elements = elements_of(parts, row)
    inplace = in_place(source, target, sum(elements[:rank]) * source.array.itemsize)
    return _call(Request("all_gather", elements, source.array.dtype, algorithm, inplace=inplace), source, target)


def gather(
    rank: int,
    size: int,
    x: Any,
    root: int = 0,
    *,
    counts: Counts = None,
    out: Any = None,
    algorithm: Chosen | None = None,
) -> Call:
    root = rank_of(root, size, "root")
    source = for_input(x)
    rows, row = rows_of(source)
    parts = shares_around(counts, rows, rank, size)
    elements = elements_of(parts, row)
    target = output(out, (sum(parts), *row), source) if rank == root else None
    inplace = target is not None and in_place(source, target, sum(elements[:rank]) * source.array.itemsize)
    request = Request("gather", elements, source.array.dtype, algorithm, root=root, inplace=inplace)
    return _call(request, source, target)


def scatter(
    rank: int,
    size: int,
    x: Any,
    root: int = 0,
    *,
    counts: Counts = None,
    out: Any = None,
    algorithm: Chosen | None = None,
) -> Call:
    root = rank_of(root, size, "root")
    if rank != root and out is not None:  # where only the result's shape counts, `out` tells it
        target = for_output(out)
        rows, row = rows_of(target)
        parts = shares_around(counts, rows, rank, size)
        request = Request("scatter", elements_of(parts, row), target.array.dtype, algorithm, root=root)
        return _call(request, None, target)
    if x is None:
        missing = "on the root" if rank == root else "and out too: pass one of them, for the result's shape and dtype"
        raise TypeError(f"x is None {missing}")
    source = for_input(x)
    rows, row = rows_of(source)
    parts = shares(counts, rows, size)
    target = output(out, (parts[rank], *row), source)
    elements = elements_of(parts, row)
    inplace = rank == root and in_place(source, target, -sum(elements[:rank]) * source.array.itemsize)
    request = Request("scatter", elements, source.array.dtype, algorithm, root=root, inplace=inplace)
    return _call(request, source if rank == root else None, target)


def all_to_all(
    rank: int,
    size: int,
    x: Any,
    *,
    send_counts: Counts = None,
    recv_counts: Counts = None,
    out: Any = None,
    algorithm: Chosen | None = None,
) -> Call:
    source = for_input(x)
    if (send_counts is None) != (recv_counts is None):
        raise ValueError("all_to_all takes send_counts and recv_counts together, or neither")
    rows, row = rows_of(source)
    sent = shares(send_counts, rows, size, "send_counts")
    received = sent if recv_counts is None else counts_of(recv_counts, size, "recv_counts")
    if sent[rank] != received[rank]:
        raise ValueError(f"rank {rank} sends itself {sent[rank]} rows, but means to receive {received[rank]}")
    target = output(out, (sum(received), *row), source)
    request = Request(
        "all_to_all", elements_of(received, row), source.array.dtype, algorithm,
        given=elements_of(sent, row), agreed=send_counts is None,
    )  # fmt: skip
    if not in_place(source, target):
        return _call(request, source, target)
    return _call(request, for_input(x, private=True), target)  # every block moves: none can stay where it is


def barrier(rank: int, size: int, *, algorithm: Chosen | None = None) -> Call:
    return Call(Request("barrier", (0,), np.dtype(np.bool_), algorithm), 0, 0, None, ())


BUILDERS: dict[str, Callable[..., Call]] = {
    build.__name__: build
    for build in (
        all_reduce, reduce_scatter, all_gather, all_to_all, broadcast, reduce, gather, scatter, scan, exscan, barrier
    )
}  # fmt: skip


# -- parts of the above ------------------------------------------------------------------------------


def _call(request: Request, source: Buffer | None, target: Buffer | None) -> Call:
    keep = tuple(buffer for buffer in (source, target) if buffer is not None)
    call = Call(
        request,
        source.address if source else 0,
        target.address if target else 0,
        target.given if target else None,
        keep,
    )
    if source is not None and source.copied:
        call.before = source.load
    return call


def _like_input(
    collective: str, source: Buffer, algorithm: Chosen | None, op: ReduceOp | None, root: int = 0, inplace: bool = False
) -> Request:
    array = source.array
    shape = array.shape if op is not None and op.function else ()
    return Request(collective, (array.size,), array.dtype, algorithm, op, root, inplace, shape=shape)


def _reduction(op: Op, source: Buffer) -> ReduceOp:
    reduction = reduce_op(op)
    if not supports(source.array.dtype, reduction):
        raise TypeError(f"{reduction.name} is not defined on {source.array.dtype}")
    return reduction


def _prefix_op(collective: str, op: Op, source: Buffer) -> ReduceOp:
    reduction = _reduction(op, source)
    if reduction.name == "avg":
        raise ValueError(f"{collective} has no avg: each rank combines another number of contributions")
    return reduction
