"""Communicator: a group of ranks and the collectives among them, one method each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from collx import calls, shrink
from collx.bearings import Bearings
from collx.calls import Call, Op
from collx.checks import rank_of, seconds, whole64
from collx.decisions import UNDECIDED, Decisions
from collx.engine import Engine
from collx.handle import Handle
from collx.known import quick
from collx.layout import Counts
from collx.memory import shared_array
from collx.on_gpu import FIRST
from collx.request import Chosen
from collx.types import Array, Where, nearest
from collx.work import Work

if TYPE_CHECKING:
    from collx.cuda.engine import CudaEngine
    from collx.group import Group

Look = Callable[[], None] | None
# Makes the engine of a new group: (world ranks of its members in their new order, a label all give alike and use
# once, seconds, what to call every now and then while members are waited for, instead of looking who has died).
# Called by every member.
MakeGroup = Callable[[Sequence[int], str, float, Look], Engine]


class Communicator(Bearings):
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

    def __init__(
        self,
        engine: Engine,
        rank: int,
        local_rank: int,
        hosts: Sequence[str],
        timeout: float,
        make_group: MakeGroup,
        world_ranks: Sequence[int] | None = None,
        label: str = "world",
        decisions: Decisions = UNDECIDED,
    ) -> None:
        super().__init__(engine, rank, local_rank, hosts, timeout, world_ranks, decisions)
        self._make_group = make_group
        self._label = label
        self._splits = 0
        self._gpu_engines = 0

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

    def split(self, color: int | None, key: int = 0) -> Communicator | None:
        """A communicator of the ranks that give the same `color`, ordered by `key`, then by rank; None for color None.

        Collective. Raises TypeError where color or key is no integer, ValueError where it does not fit 64 bits, and
        as collectives do.
        """
        self._alone("split")
        given = [0, 0] if color is None else [1, whole64(color, "color")]
        mine = np.array([*given, whole64(key, "key")], np.int64)
        call = calls.all_gather(self.rank, self.size, mine)
        call.request = call.request._replace(called="split")
        table: list[list[int]] = self._do(call, False, None).reshape(self.size, 3).tolist()
        self._splits += 1
        if color is None:
            return None
        members = sorted((r for r in range(self.size) if table[r][:2] == given), key=lambda r: (table[r][2], r))
        label = f"{self._label}/{self._splits}.{color}"
        try:
            engine = self._make_group(self._world(members), label, self.timeout, None)
        except BaseException as error:
            self._break(f"split #{self._splits}", error)
            raise
        return self._of(members, engine, label)

    def subgroup(self, ranks: Sequence[int], label: str) -> Communicator:
        """A communicator of `ranks` of this one, in the order given.

        Collective among these ranks, and nobody else: all give the same ranks and the same label, which no two
        subgroups of one communicator may share. Raises TypeError or ValueError for what are no ranks, or where this
        rank is not among them, collx.TimeoutError where one of them has not called it in time.
        """
        self._alive()
        members = [rank_of(rank, self.size, "rank") for rank in ranks]
        if len(set(members)) < len(members) or self.rank not in members:
            raise ValueError(f"ranks are {members}, but must be different ones, and rank {self.rank} among them")
        label = f"{self._label}/of.{label}"
        return self._of(members, self._make_group(self._world(members), label, self.timeout, None), label)

    def revoke(self) -> None:
        """Make every call on this communicator raise RevokedError, on all ranks, those under way too. Not collective.

        Nothing happens where it is broken already. What it raises then, `shrink` can follow. Raises ClosedError
        where this rank has closed it.
        """
        if self._left:
            self._alive()
        self._engine.may_call()
        self._revoke()

    def shrink(self, timeout: float | None = None) -> Communicator:
        """A communicator of the ranks that are left, in rank order; this one is closed.

        Collective among the survivors, after any of the errors between ranks; where there was none, this one is
        revoked first. Ranks that die or close it meanwhile are left out. All survivors get the same members or
        all raise.

        Raises ClosedError where this rank has closed it, collx.TimeoutError where a survivor has not called it
        within `timeout` seconds (the communicator's by default), AbortedError where another rank gave up on it.
        After either of these two it cannot be shrunk any more.
        """
        limit = self.timeout if timeout is None else seconds(timeout)
        self._alone("shrink")
        if self._left:
            self._alive()
        self._revoke()
        self._end("it was shrunk")

        def connect(members: Sequence[int], attempt: int, timeout: float, look: Callable[[], None]) -> Engine:
            return self._make_group(self._world(members), self._shrunk(attempt), timeout, look)

        survivors = self._engine.survivors()
        members, attempt, engine = shrink.agree(survivors, connect, self.size, limit)
        self.close()
        return self._of(members, engine, self._shrunk(attempt))

    def _gpu_engine(self, where: Where, limit: float) -> CudaEngine:
        from collx.cuda.engine import CudaEngine  # which those without GPUs never need
        from collx.cuda.joining import refuse_capture

        refuse_capture(where)
        met = calls.barrier(self.rank, self.size)  # whose other calls are on the CPU is found out here
        met.request = met.request._replace(called=FIRST)
        self._do(met, False, limit)
        self._gpu_engines += 1
        try:
            engine = self._make_group(self._world_ranks, f"{self._label}/cuda.{self._gpu_engines}", limit, None)
        except BaseException as error:
            self._break(FIRST, error)
            raise
        return CudaEngine(engine, self.rank, self.size, self._groups, self._guide)

    def _shrunk(self, attempt: int) -> str:
        return f"{self._label}/shrink.{attempt}"

    def _world(self, members: Sequence[int]) -> tuple[int, ...]:
        return tuple(self._world_ranks[member] for member in members)

    def _of(self, members: Sequence[int], engine: Engine, label: str) -> Communicator:
        """The communicator of some of these ranks, this one among them, in the order given."""
        rank, hosts = members.index(self.rank), tuple(self.hosts[member] for member in members)
        return Communicator(
            engine,
            rank,
            hosts[:rank].count(hosts[rank]),
            hosts,
            self.timeout,
            self._make_group,
            self._world(members),
            label,
            self._decisions,
        )

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
