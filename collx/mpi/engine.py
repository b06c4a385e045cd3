"""The engine of ranks that MPI joins: schedules by the reference engine, and MPI's own collectives as one more way.

Nobody enters one of MPI's before all ranks have said that they make the same call (`guard.py`). While that is under way
whoever leaves, fails or makes another call is found out as everywhere. After it a call below 16 MiB is MPI's blocking
one, the fastest, which nobody can leave: where it outlives its deadline the job is ended. Larger ones, and asynchronous
ones, are MPI's nonblocking ones, as steps among the other calls.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from mpi4py import MPI

from collx import _core
from collx.agreement import Traits, traits_of
from collx.engine import PreparedPlan, ReferenceEngine
from collx.errors import TransportError
from collx.flight import SHOWN, STATES, Flown, table
from collx.known import Begin, Failed
from collx.mpi.collectives import Collective
from collx.mpi.guard import BLOCKING, NONBLOCKING, Guard
from collx.mpi.kept import Kept
from collx.mpi.steps import compared, performed
from collx.mpi.watch import watch
from collx.mpi.ways import Ways
from collx.plan import Plan
from collx.reference.lanes import COLLECTIVE, Stamp
from collx.reference.progress import Steps, Task
from collx.reference.reduction import combine
from collx.transports.base import Transport
from collx.transports.mpi import MpiTransport
from collx.transports.mpi_calls import calls, check_running
from collx.types import Array, ReduceOp

LARGE = 16 << 20  # bytes from which MPI's nonblocking collectives are no slower than its blocking ones
SOON = 500  # looks at the guard, some 0.1 ms, before the other calls of this rank move on meanwhile


@dataclass(frozen=True, slots=True)
class MpiPlan(PreparedPlan):
    """A plan that is MPI's own collective."""

    collective: Collective
    large: bool


# A call in a blocking collective: its number, what ranks must agree on, when it began, its timeout. A bare tuple: to
# make anything else takes as long as a small message.
Blocking = tuple[int, Traits, float, float]


class MpiEngine(ReferenceEngine):
    """Runs plans over `transport`, and MPI's own collectives on the communicator of `mpi`, which is it or a part of it,
    in these `ways`, which are the same on all ranks. `end_job(told)` ends them all.
    """

    mpi = True

    def __init__(self, transport: Transport, mpi: MpiTransport, ways: Ways, end_job: Callable[[str], object]) -> None:
        super().__init__(transport)
        self._mpi = mpi
        self._may_block, self._end_job = ways.block, end_job
        with calls:
            self._guard = Guard(mpi.comm) if ways.compare else None
        self._kept = Kept()
        self._blocked: Blocking | None = None
        self._short: deque[tuple[Blocking, float]] = deque(maxlen=SHOWN)  # calls that were no tasks, and their ends
        self._failed: Failed | None = None
        watch(self)

    def known(self, timeout: float, kind: type[Array], failed: Failed, begin: Begin) -> _core.Known:
        self._failed = failed
        return _core.Known(self._at_once, failed, begin, kind, timeout)

    def prepare(self, plan: Plan, op: ReduceOp) -> PreparedPlan:
        if not plan.elements:
            return super().prepare(plan, op)
        nbytes = sum(plan.elements) * plan.itemsize  # the same on all ranks
        return MpiPlan(plan, combine(op), traits_of(plan), Collective(self._mpi.comm, plan), nbytes >= LARGE)

    def run(self, prepared: PreparedPlan, source: int, target: int, sequence: int, timeout: float) -> None:
        if isinstance(prepared, MpiPlan) and self._may_block and self._progress.drained():
            self._run(prepared, source, target, sequence, timeout)
        else:
            super().run(prepared, source, target, sequence, timeout)

    def _at_once(self, prepared: PreparedPlan, source: int, target: int, timeout: float, *memory: object) -> bool:
        """What the short way runs."""
        if type(prepared) is not MpiPlan or not self._may_block or not self._progress.idle():
            return False
        self.sequence = sequence = self.sequence + 1
        try:
            self._run(prepared, source, target, sequence, timeout)
        except BaseException as error:
            self.hold(memory)
            if self._failed is not None:
                self._failed(f"{prepared.plan.collective} #{sequence}", error)
            raise
        return True

    def _run(self, prepared: MpiPlan, source: int, target: int, sequence: int, timeout: float) -> None:
        """A synchronous call where this thread may block."""
        check_running()
        begun = time.monotonic()
        traits, guard = prepared.traits, self._guard
        chain = self._lanes.calls.chain(sequence, traits)
        way = self._way(prepared, source, target) if prepared.large else BLOCKING
        agreed = guard is None or guard.soon(chain, way, SOON)
        if agreed and not prepared.large:
            self._block(prepared, source, target, (sequence, traits, begun, timeout))
        else:
            stamp = Stamp(COLLECTIVE, sequence, chain, traits)
            steps = self._steps(prepared, stamp, source, target, timeout, way, agreed)
            self._finish(self._submitted(steps, stamp, timeout, background=False))

    def _way(self, prepared: MpiPlan, source: int, target: int) -> int:
        """How this rank would make a large call."""
        if self._guard is None or not (self._guard.persistent and prepared.collective.gains):
            return NONBLOCKING
        return self._kept.number(prepared.collective, source, target)

    def _collective(
        self, prepared: PreparedPlan, source: int, target: int, sequence: int, timeout: float, *, background: bool
    ) -> Task:
        if not isinstance(prepared, MpiPlan):
            return super()._collective(prepared, source, target, sequence, timeout, background=background)
        self._progress.usable(f"{self._me}: {prepared.traits.collective} #{sequence}")
        stamp = self._lanes.calls.begin(sequence, prepared.traits)
        steps = self._steps(prepared, stamp, source, target, timeout, None, self._guard is None)
        return self._submitted(steps, stamp, timeout, background=background)

    def _steps(
        self, prepared: MpiPlan, stamp: Stamp, source: int, target: int, timeout: float, way: int | None, agreed: bool
    ) -> Steps:
        """A call among others. The guard has been told the `way` of this rank, if there is one, and all ranks may have
        agreed on it."""
        begun, collective = time.monotonic(), prepared.collective
        if not agreed and self._guard is not None:
            if way is None:
                with calls:
                    self._guard.start(stamp.chain, NONBLOCKING)
            yield from compared(self._guard, self._mpi, self._lanes, stamp)
            _, way = self._guard.outcome()
        if way == BLOCKING and not prepared.large:
            self._block(prepared, source, target, (stamp.number, stamp.traits, begun, timeout))
            return
        kept = self._kept if way not in (None, NONBLOCKING) else None
        if kept is not None and way == BLOCKING:
            with calls:
                kept.make(collective, source, target)
        yield from performed(collective, source, target, self._mpi, self._lanes, kept)

    def _block(self, prepared: MpiPlan, source: int, target: int, call: Blocking) -> None:
        self._blocked = call
        try:
            prepared.collective.run(source, target)
        except MPI.Exception as error:
            number, traits, *_ = call
            what = f"{self._me} in {traits.collective} #{number}"
            raise TransportError(f"{what}: MPI failed: {' '.join(str(error).split())}") from error
        finally:
            self._blocked = None
        self._short.append((call, time.monotonic()))

    def look(self) -> None:
        """End the job where this rank blocks for too long. In a thread of its own."""
        call = self._blocked  # which ends meanwhile
        if call is None:
            return
        number, traits, begun, timeout = call
        if time.monotonic() < begun + timeout:
            return
        told = (
            f"{self._me} in {traits.collective} #{number} has been in MPI's own collective for"
            f" {timeout:g} s. All ranks have begun it and none can leave it, so this ends the job; is one of them"
            " stopped, or the network broken?\n"
        )
        self._end_job(table(f"{self._me}: its last collectives", self.flown()) + told)

    def flown(self) -> dict[int, list[Flown]]:
        rank, blocked = self.transport.rank, self._blocked
        found = [*super().flown()[rank], *(_flown(call, ended) for call, ended in self._short)]
        if blocked is not None:
            found.append(_flown(blocked, 0.0))
        return {rank: sorted(found, key=lambda call: call.sequence)[-SHOWN:]}

    def close(self) -> None:
        if not self._mpi.closed:
            self._mpi.word, self._mpi.parting, self._mpi.held = self.sequence, self._give_back, self._held
        super().close()

    def _give_back(self) -> bool:
        return self._guard is None or all((self._guard.close(), self._kept.close()))


def _flown(call: Blocking, ended: float) -> Flown:
    number, t, begun, _ = call
    state = STATES.index("done" if ended else "under way")
    return Flown(number, t.collective, t.dtype, t.op, t.root, t.count, t.algorithm, state, begun, ended)
