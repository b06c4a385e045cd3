"""What runs plans. `Engine` is what the communicator asks of one; `ReferenceEngine` is the one in Python."""

from __future__ import annotations

import math
import mmap
from collections import deque
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from collx.agreement import Traits, traits_of
from collx.errors import (
    AbortedError,
    ClosedError,
    CollxError,
    MismatchError,
    RankFailedError,
    RevokedError,
    TransportError,
)
from collx.flight import SHOWN, STATES, Flown
from collx.known import Begin, Failed, Known, Unknown
from collx.plan import Plan
from collx.reference.lanes import DIFFERED, MATCHED, TAGGED, Lanes, Sent, Stamp
from collx.reference.moves import PlanRun, bytes_at
from collx.reference.progress import Passage, Progress, Steps, Task
from collx.reference.reduction import Combine, combine
from collx.reference.verdict import BoardSurvivors, Judge
from collx.transports.base import Board, Survivors, Transport
from collx.types import ANY, Array, Envelope, ReduceOp, asking

SEND, RECV, PROBE = (Traits(0, -1, name) for name in ("send", "recv", "probe"))


class Pending(Protocol):
    """A call under way on the engine's progress thread."""

    def done(self) -> bool:
        """Whether it has ended, well or not; never blocks."""
        ...

    def wait(self, timeout: float) -> Envelope | None:
        """Return when it has ended, of a receive the envelope of what it got. Raise what it failed with, or
        TimeoutError after `timeout` seconds."""
        ...


@runtime_checkable
class Cancellable(Protocol):
    """A Pending that can be taken back."""

    def cancel(self) -> bool:
        """End it with CancelledError if nothing has come for it; whether that was done."""
        ...


class Engine(Protocol):
    """One rank's engine in one communicator. Addresses are of C-contiguous memory that the caller keeps alive."""

    transports: tuple[str, ...]
    links: tuple[str, ...]  # by rank, which of them carries the messages between that one and this one
    place: str  # where ranks on other hosts reach this one: address and interface; "" where that is not known
    capacity: int  # bytes that one message segment may have at most
    window: int  # segments in flight at most
    far: bool  # whether ranks are on several hosts, and talk by native lanes: the same on all of them
    mpi: bool  # whether it runs plans that are MPI's own collectives
    sequence: int  # collectives so far: the newest one's number

    def may_call(self) -> None:
        """Raise TransportError where this thread may not call, which harms nothing."""
        ...

    def known(self, timeout: float, kind: type[Array], failed: Failed, begin: Begin) -> Known:
        """The short way to its plans, for one communicator. Arrays of type `kind` are as good as NumPy's own;
        `failed(what, error)` is told what a call raises, `begin` starts an asynchronous one, and returns its Work."""
        ...

    def prepare(self, plan: Plan, op: ReduceOp) -> Any:
        """The engine's own form of `plan`, to be cached by the caller."""
        ...

    def run(self, prepared: Any, source: int, target: int, sequence: int, timeout: float) -> None:
        """Run a plan from the input at address `source` to the output at `target`; `sequence` counts the
        communicator's collectives. Raises CollxError subclasses."""
        ...

    def start(self, prepared: Any, source: int, target: int, sequence: int, timeout: float) -> Pending:
        """As run, but in order on the progress thread."""
        ...

    def send(self, address: int, nbytes: int, to: int, tag: int, timeout: float, synchronous: bool = False) -> None:
        """`synchronous`: return only when a receive has been matched with it."""
        ...

    def recv(
        self, address: int, nbytes: int, source: int, tag: int, timeout: float, exactly: bool = True
    ) -> Envelope | None:
        """Receive a message of `nbytes` bytes `exactly`, or of so many at most, and return its envelope then. `source`
        and `tag` may be ANY. Of the receives that ask for a message the first one gets it."""
        ...

    def start_send(
        self, address: int, nbytes: int, to: int, tag: int, timeout: float, synchronous: bool = False
    ) -> Pending: ...

    def start_recv(
        self, address: int, nbytes: int, source: int, tag: int, timeout: float, exactly: bool = True
    ) -> Pending:
        """As recv; what it returns can be cancelled."""
        ...

    def probe(self, source: int, tag: int, timeout: float, waits: bool) -> Envelope | None:
        """The envelope of the message that a receive would get now, or where it `waits` as soon as there is one."""
        ...

    def allocate(self, nbytes: int) -> Array:
        """`nbytes` bytes of memory, as uint8, that peers may read in place where the engine can do that. It is freed
        with the last view. Raises MemoryError."""
        ...

    def fail(self, reason: str, *, mismatch: bool = False) -> None:
        """Tell the other ranks that this one gave up, and why (one line), or of a `mismatch` of their calls."""
        ...

    def hold(self, memory: object) -> None:
        """Keep alive the memory of a call that failed, for as long as anything may still read or write it."""
        ...

    def revoke(self) -> None:
        """Make every rank's calls raise RevokedError, unless something else has ended the communicator."""
        ...

    def leaving(self) -> None:
        """Say that nothing more will be started: what waits for more than is under way already need not go on."""
        ...

    def survivors(self) -> Survivors:
        """How to agree on who goes on. Raises TransportError where this cannot be agreed on."""
        ...

    def flown(self) -> dict[int, list[Flown]]:
        """The last collectives of every rank whose records this one can see, its own among them."""
        ...

    def close(self) -> None:
        """Leave; idempotent. Calls under way fail with ClosedError."""
        ...


@dataclass(frozen=True, slots=True)
class PreparedPlan:
    """A plan with what the reference engine needs besides: how to combine, and what ranks must agree on."""

    plan: Plan
    combine: Combine
    traits: Traits


class ReferenceEngine:
    """Runs plans in Python over any Transport: the oracle of the native engine.

    It relies neither on buffered sends nor on rendezvous. Custom ops are called on the blocks as 1-D arrays,
    read-only, in whichever thread moves the call on. A failed call breaks the engine: the other ranks are
    told, and every later call raises ClosedError.
    """

    capacity = 1 << 62
    window = 1
    mpi = False
    far = False
    place = ""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.sequence = 0
        self.transports: tuple[str, ...] = tuple(transport.name.split("+"))
        self.links: tuple[str, ...] = getattr(transport, "links", (transport.name,) * transport.size)
        self._lanes = Lanes(transport)
        self._me = f"rank {transport.rank}"
        self._judge = Judge(transport, transport.rank) if isinstance(transport, Board) else None
        self._progress = Progress(self._me, self._poll, self._judged, transport.threads)
        self._told: list[Sent] = []
        self._held: list[object] = []
        self._flown: deque[tuple[Stamp, Passage]] = deque(maxlen=SHOWN)

    def may_call(self) -> None:
        self._progress.may_call()

    def known(self, timeout: float, kind: type[Array], failed: Failed, begin: Begin) -> Known:
        return Unknown(timeout)

    def prepare(self, plan: Plan, op: ReduceOp) -> PreparedPlan:
        return PreparedPlan(plan, combine(op), traits_of(plan))

    def run(self, prepared: PreparedPlan, source: int, target: int, sequence: int, timeout: float) -> None:
        self._finish(self._collective(prepared, source, target, sequence, timeout, background=False))

    def start(self, prepared: PreparedPlan, source: int, target: int, sequence: int, timeout: float) -> Pending:
        return self._collective(prepared, source, target, sequence, timeout, background=True)

    def send(self, address: int, nbytes: int, to: int, tag: int, timeout: float, synchronous: bool = False) -> None:
        self._finish(self._send(address, nbytes, to, tag, timeout, synchronous, background=False))

    def recv(
        self, address: int, nbytes: int, source: int, tag: int, timeout: float, exactly: bool = True
    ) -> Envelope | None:
        return self._finish(self._recv(address, nbytes, source, tag, timeout, exactly, background=False))

    def start_send(
        self, address: int, nbytes: int, to: int, tag: int, timeout: float, synchronous: bool = False
    ) -> Pending:
        return self._send(address, nbytes, to, tag, timeout, synchronous, background=True)

    def start_recv(
        self, address: int, nbytes: int, source: int, tag: int, timeout: float, exactly: bool = True
    ) -> Pending:
        return self._recv(address, nbytes, source, tag, timeout, exactly, background=True)

    def probe(self, source: int, tag: int, timeout: float, waits: bool) -> Envelope | None:
        what, stamp = f"{self._me}: probe({asking(source, tag)})", Stamp(TAGGED, tag, 0, PROBE)

        def steps() -> Steps:
            receipt = self._lanes.expect(source, stamp, 0, peeks=True, exactly=False)
            yield receipt
            return receipt.envelope()

        task = self._progress.submit(steps(), what, timeout, ordered=False, background=False)
        if waits:
            return self._finish(task)
        return None if task.cancel() else self._finish(task)

    def allocate(self, nbytes: int) -> Array:
        try:
            memory = mmap.mmap(-1, max(nbytes, 1))
        except (OSError, OverflowError) as error:
            raise MemoryError(f"{self._me}: no {nbytes} bytes of memory to be had: {error}") from error
        return np.frombuffer(memory, np.uint8, nbytes)

    def fail(self, reason: str, *, mismatch: bool = False) -> None:
        """Break this engine and tell the others why; nothing happens where it is broken or closed already."""
        self._progress.stop(MismatchError(reason) if mismatch else AbortedError(reason))

    def hold(self, memory: object) -> None:
        self._held.append(memory)  # until it is closed: only then a transport has ended all transfers

    def revoke(self) -> None:
        if self._judge is not None:
            self._judge.revoke()
        else:
            self._progress.stop(RevokedError(f"{self._me} revoked this communicator"))

    def leaving(self) -> None:
        """What peers wait for in vain they learn when this rank has left."""

    def survivors(self) -> Survivors:
        if not isinstance(self.transport, Board):
            raise TransportError(f"{self._me}: ranks joined by {self.transport.name} cannot agree on who goes on")
        return BoardSurvivors(self.transport, self.transport.rank, self.transport.size)

    def flown(self) -> dict[int, list[Flown]]:
        """This rank's own: a transport shares no records."""
        calls = []
        for stamp, task in self._flown:
            t = stamp.traits
            state = STATES.index("failed" if task.error else "done" if task.ended else "under way")
            what = (t.collective, t.dtype, t.op, t.root, t.count, t.algorithm)
            calls.append(Flown(stamp.number, *what, state, task.begun, task.ended_at))
        return {self.transport.rank: calls}

    def close(self) -> None:
        self._progress.stop(ClosedError(f"{self._me}: the communicator was closed"))
        self.transport.close()
        self._held = []

    def _collective(
        self, prepared: PreparedPlan, source: int, target: int, sequence: int, timeout: float, *, background: bool
    ) -> Task:
        self._progress.usable(f"{self._me}: {prepared.traits.collective} #{sequence}")
        stamp = self._lanes.calls.begin(sequence, prepared.traits)
        steps = PlanRun(prepared.plan, prepared.combine, self._lanes, stamp, source, target).steps()
        return self._submitted(steps, stamp, timeout, background=background)

    def _submitted(self, steps: Steps, stamp: Stamp, timeout: float, *, background: bool) -> Task:
        task = self._progress.submit(steps, f"{self._me} in {stamp}", timeout, ordered=True, background=background)
        self._flown.append((stamp, task))
        return task

    def _send(
        self, address: int, nbytes: int, to: int, tag: int, timeout: float, synchronous: bool, *, background: bool
    ) -> Task:
        number = next(self._lanes.numbers) if synchronous else 0
        stamp = Stamp(TAGGED, tag, number, SEND)

        def steps() -> Steps:
            yield self._lanes.send(to, stamp, bytes_at(address, nbytes).data)
            if synchronous:
                yield self._lanes.expect(to, Stamp(MATCHED, number, 0, SEND), 0)
            return None

        what = f"{self._me}: {stamp}, to rank {to}"
        return self._progress.submit(steps(), what, timeout, ordered=False, background=background)

    def _recv(
        self, address: int, nbytes: int, source: int, tag: int, timeout: float, exactly: bool, *, background: bool
    ) -> Task:
        stamp = Stamp(TAGGED, tag, 0, RECV)

        def steps() -> Steps:
            receipt = self._lanes.expect(source, stamp, nbytes, bytes_at(address, nbytes).data, exactly=exactly)
            yield receipt
            receipt.data()
            return receipt.envelope()

        what = f"{self._me}: {stamp}, from {'any rank' if source == ANY else f'rank {source}'}"
        return self._progress.submit(steps(), what, timeout, ordered=False, background=background)

    def _finish(self, task: Task) -> Envelope | None:
        try:
            return task.wait(math.inf)
        except BaseException as error:
            if not task.ended:  # interrupted in the middle: nobody can say which messages are still to come
                self._progress.stop(AbortedError(f"{task.what} was interrupted by {error!r}"))
            raise

    def _poll(self) -> bool:
        sentence = self._judge.sentence() if self._judge is not None else None
        if sentence is not None:
            raise sentence
        return self._lanes.poll()

    def _judged(self, error: Exception) -> Exception:
        """What a failure is to all ranks. Leaving is none and nobody's news; everything else is told to all peers."""
        if isinstance(error, ClosedError):
            return error
        if self._judge is not None:
            return self._judge.judged(error)
        failed = error.ranks[0] if isinstance(error, RankFailedError) and error.ranks else -1
        failed = DIFFERED if isinstance(error, MismatchError) else failed
        known = isinstance(error, CollxError)
        self._told = self._lanes.give_up(str(error) if known else f"{self._me}: {error!r}", failed)
        return error
