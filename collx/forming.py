"""How communicators come from others: of some of a communicator's ranks, of those that are left, and for its GPUs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Self

import numpy as np

from collx import calls, shrink
from collx.bearings import Bearings
from collx.checks import rank_of, seconds, whole64
from collx.decisions import UNDECIDED, Decisions
from collx.engine import Engine
from collx.on_gpu import FIRST
from collx.types import Where

if TYPE_CHECKING:
    from collx.cuda.engine import CudaEngine

Look = Callable[[], None] | None
# Makes the engine of a new group: (world ranks of its members in their new order, a label all give alike and use
# once, seconds, what to call every now and then while members are waited for, instead of looking who has died).
# Called by every member.
MakeGroup = Callable[[Sequence[int], str, float, Look], Engine]


class Forming(Bearings):
    """Knows how engines of new groups are made, and by which label its own is known."""

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

    def split(self, color: int | None, key: int = 0) -> Self | None:
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

    def subgroup(self, ranks: Sequence[int], label: str) -> Self:
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

    def shrink(self, timeout: float | None = None) -> Self:
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

    def _of(self, members: Sequence[int], engine: Engine, label: str) -> Self:
        """The communicator of some of these ranks, this one among them, in the order given."""
        rank, hosts = members.index(self.rank), tuple(self.hosts[member] for member in members)
        return type(self)(
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
