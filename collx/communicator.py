"""Communicator: a group of ranks and the collectives among them, one method each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from collx import calls
from collx.calls import Call, Op
from collx.forming import Forming
from collx.handle import Handle
from collx.known import quick
from collx.layout import Counts
from collx.memory import shared_array
from collx.request import Chosen
from collx.types import Array, nearest
from collx.work import Work

if TYPE_CHECKING:
    from collx.group import Group


class Communicator(Forming):
    """A group of ranks, made by `collx.init`, `collx.spawn` or `split`.

    Every collective is called by all ranks of the group, in one order and with arguments that agree; a rank
    that does not raises MismatchError or makes others raise it. Arrays are NumPy arrays, objects with the buffer
    protocol, DLPack arrays and torch tensors, or arrays of CuPy, PyTorch, Numba and JAX on GPUs, where a call is
    ordered on the caller's current stream; see docs/api.md. Arguments common to all:

    out: where the result goes, a writable, C-contiguous array of the result's shape and dtype; None makes a
        new one, of the kind of `x`. `out=x` works in place where both have one shape.
    async_op: return a `Work` at once; neither `x` nor `out` may be changed until it has ended.
    timeout: seconds; None takes the communicator's.
    algorithm: a name of docs/algorithms.md, or a function `(rank, size[, root]) -> Schedule` of your own, which is
        proved before its first use (docs/own-algorithms.md); None lets the selector choose.

    All raise TypeError, ValueError or BufferError for wrong arguments, before anything is sent, and, between
    ranks, subclasses of CollxError: TimeoutError, RankFailedError, MismatchError, AbortedError. After one of
    the latter the communicator is broken, and raises ClosedError. All ranks get the same bits. One thread at
    a time may use a communicator.
    """

    # -- collectives ---------------------------------------------------------------------------------

    @quick
    def all_reduce(
        self,
        x: Any,
        op: Op = "sum",
        *,
        out: Any = None,
        async_op: bool = False,
        timeout: float | None = None,
        algorithm: Chosen | None = None,
    ) -> Any:
        """The reduction of every rank's `x`, on all ranks: an array of x's shape and dtype.

        op: sum, prod, min, max, avg, band, bor, bxor, land, lor, lxor or ReduceOp.custom. min and max are not
        defined on complex dtypes, avg not on integers, band, bor and bxor on neither floats nor complex.
        """
        call = calls.all_reduce(self.rank, self.size, x, op, out=out, algorithm=algorithm)
        return self._do(call, async_op, timeout, x, out, op, algorithm)

    @quick
    def reduce_scatter(
        self,
        x: Any,
        op: Op = "sum",
        *,
        counts: Counts = None,
        out: Any = None,
        async_op: bool = False,
        timeout: float | None = None,
        algorithm: Chosen | None = None,
    ) -> Any:
        """This rank's rows of the reduction of every rank's `x`: (sum(counts), ...) -> (counts[rank], ...).

        counts: rows for each rank, the same on all; None shares the first axis equally. `out` may be this
        rank's rows of `x`.
        """
        call = calls.reduce_scatter(self.rank, self.size, x, op, counts=counts, out=out, algorithm=algorithm)
        return self._do(call, async_op, timeout, x, out, op, counts, algorithm)

    @quick
    def all_gather(
        self,
        x: Any,
        *,
        counts: Counts = None,
        out: Any = None,
        async_op: bool = False,
        timeout: float | None = None,
        algorithm: Chosen | None = None,
    ) -> Any:
        """Every rank's rows in rank order, on all ranks: (k, ...) -> (size * k, ...), or (sum(counts), ...).

        counts: rows of each rank, the same on all; None where all have as many. `x` may be this rank's rows
        of `out`. A 0-d array is one row.
        """
        call = calls.all_gather(self.rank, self.size, x, counts=counts, out=out, algorithm=algorithm)
        return self._do(call, async_op, timeout, x, out, counts, algorithm)

    @quick
    def all_to_all(
        self,
        x: Any,
        *,
        send_counts: Counts = None,
        recv_counts: Counts = None,
        out: Any = None,
        async_op: bool = False,
        timeout: float | None = None,
        algorithm: Chosen | None = None,
    ) -> Any:
        """Part j of `x` goes to rank j; the result is the parts from ranks 0, 1, ...: an array of x's shape.

        send_counts, recv_counts: rows for and from each rank, (sum(send_counts), ...) -> (sum(recv_counts),
        ...), given on all ranks or none; None shares the first axis equally. With `out=x` the input is copied first.
        """
        call = calls.all_to_all(
            self.rank, self.size, x, send_counts=send_counts, recv_counts=recv_counts, out=out, algorithm=algorithm
        )
        return self._do(call, async_op, timeout, x, out, send_counts, recv_counts, algorithm)

    @quick
    def broadcast(
        self,
        x: Any,
        root: int = 0,
        *,
        async_op: bool = False,
        timeout: float | None = None,
        algorithm: Chosen | None = None,
    ) -> Any:
        """Overwrite `x` with the root's, of the same shape and dtype; returns `x`. The root's may be read-only."""
        call = calls.broadcast(self.rank, self.size, x, root, algorithm=algorithm)
        return self._do(call, async_op, timeout, x, None, root, algorithm)

    @quick
    def reduce(
        self,
        x: Any,
        op: Op = "sum",
        root: int = 0,
        *,
        out: Any = None,
        async_op: bool = False,
        timeout: float | None = None,
        algorithm: Chosen | None = None,
    ) -> Any:
        """As all_reduce, but on the root only; None on the other ranks, which ignore `out`."""
        call = calls.reduce(self.rank, self.size, x, op, root, out=out, algorithm=algorithm)
        return self._do(call, async_op, timeout, x, out, op, root, algorithm)

    @quick
    def gather(
        self,
        x: Any,
        root: int = 0,
        *,
        counts: Counts = None,
        out: Any = None,
        async_op: bool = False,
        timeout: float | None = None,
        algorithm: Chosen | None = None,
    ) -> Any:
        """As all_gather, but on the root only; None on the other ranks, which ignore `out`."""
        call = calls.gather(self.rank, self.size, x, root, counts=counts, out=out, algorithm=algorithm)
        return self._do(call, async_op, timeout, x, out, root, counts, algorithm)

    @quick
    def scatter(
        self,
        x: Any,
        root: int = 0,
        *,
        counts: Counts = None,
        out: Any = None,
        async_op: bool = False,
        timeout: float | None = None,
        algorithm: Chosen | None = None,
    ) -> Any:
        """This rank's rows of the root's `x`: (sum(counts), ...) -> (counts[rank], ...).

        Other ranks need `out`, or an `x` of the root's shape and dtype, which is not read; with `out` their
        `x` may be None. counts: rows for each rank, the same on all; None shares the first axis equally.
        """
        call = calls.scatter(self.rank, self.size, x, root, counts=counts, out=out, algorithm=algorithm)
        return self._do(call, async_op, timeout, x, out, root, counts, algorithm)

    @quick
    def scan(
        self,
        x: Any,
        op: Op = "sum",
        *,
        out: Any = None,
        async_op: bool = False,
        timeout: float | None = None,
        algorithm: Chosen | None = None,
    ) -> Any:
        """The reduction of the `x` of ranks 0 .. rank, in rank order. No avg."""
        call = calls.scan(self.rank, self.size, x, op, out=out, algorithm=algorithm)
        return self._do(call, async_op, timeout, x, out, op, algorithm)

    @quick
    def exscan(
        self,
        x: Any,
        op: Op = "sum",
        *,
        out: Any = None,
        async_op: bool = False,
        timeout: float | None = None,
        algorithm: Chosen | None = None,
    ) -> Any:
        """The reduction of the `x` of ranks 0 .. rank-1, in rank order. On rank 0 the value that changes nothing
        under `op` (0 for sum, the largest for min, ...; zero for custom ops). No avg."""
        call = calls.exscan(self.rank, self.size, x, op, out=out, algorithm=algorithm)
        return self._do(call, async_op, timeout, x, out, op, algorithm)

    @quick
    def barrier(
        self, timeout: float | None = None, *, async_op: bool = False, algorithm: Chosen | None = None
    ) -> Work | None:
        """Return when every rank has called it; with `async_op` a Work that ends then."""
        call = calls.barrier(self.rank, self.size, algorithm=algorithm)
        work: Work | None = self._do(call, async_op, timeout, None, None, algorithm)
        return work

    # -- beside the collectives ----------------------------------------------------------------------

    def plan(self, collective: str, *args: Any, **kwargs: Any) -> Handle:
        """A persistent handle of the collective named, with the arguments its method takes (but async_op and
        timeout, which each run takes): `again = comm.plan("all_reduce", x, out=y)`, then `again()`.

        Local: only running it involves other ranks. Raises as the method does for wrong arguments.
        """
        if str(collective) not in calls.BUILDERS:
            raise ValueError(f"unknown collective {collective!r}: {nearest(str(collective), calls.BUILDERS)}")
        self._alive()
        call: Call = calls.BUILDERS[collective](self.rank, self.size, *args, **kwargs)
        return Handle(self, call)

    def group(self, *, async_op: bool = False, timeout: float | None = None) -> Group:
        """A context manager in whose block calls and messages are noted only, and made together when it is left:
        small collectives that are alike packed into few, sends and receives all started before any is waited for.

        Inside, methods check their arguments and return what they would, filled when the block has been left; with
        async_op a Work that ends with the group. The calls have no order among themselves: none may write what another
        reads or writes (ValueError when the block is left). All ranks make the same collectives in the same order, or
        MismatchError is raised. timeout: seconds for each call; the shortest that the group or a call in it is given
        holds for all.

        async_op: do not wait when the block is left; `group.work` is one Work for all, whose results are there when
        it has been waited for or was seen to be done.

        An exception that leaves the block drops the group: nothing was sent, and the communicator is as good as before.
        """
        from collx.group import Group  # most programs make none

        return Group(self, async_op, timeout)

    def empty(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """A new NumPy array, of unspecified content, in memory that the other ranks of this communicator see. Local.

        It works wherever an array does; the collectives of this communicator (of no other) read it, and any part of
        it that is contiguous, where it lies. Views share its memory, which is freed with the last of them and may
        outlive the communicator. Copies and what is computed of it are ordinary arrays. Pickling raises TypeError.

        Raises TypeError for a dtype collx does not compute with, ValueError for a negative length,
        MemoryError where there is not that much shared memory.
        """
        self._alive()
        return shared_array(shape, dtype, self._engine.allocate)
