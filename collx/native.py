"""The bridge to the engine in C++ (`collx._core`): plans as words, outcomes as exceptions."""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from collx import _core
from collx.agreement import OWN_COUNTS, traits_of, unheard, unhearing
from collx.errors import ClosedError, MismatchError, TimeoutError
from collx.flight import SHOWN, Flown
from collx.known import Begin, Failed
from collx.plan import Lane, Move, Operand, Plan
from collx.transports.base import Survivors
from collx.transports.lanes import (
    CLOSED,
    DECIDED,
    DEPARTED,
    LENGTH,
    MISMATCHED,
    OK,
    OP_FAILED,
    RECALLED,
    TIMED_OUT,
    TRUNCATED,
    LaneSurvivors,
    LaneTransport,
    Region,
    Wires,
)
from collx.transports.verdict import GAVE_UP, MISMATCH, REVOKED
from collx.types import DTYPES, Array, Envelope, ReduceOp, asking

Outcome = tuple[int, int, int, int]  # status, peer, and the bytes that came and were wanted
WINDOW = 2  # segments in flight: one moves while the other is waited for


def _operand_words(operand: Operand) -> list[int]:
    if isinstance(operand, Lane):
        return [operand.peer]
    return [-1, *(number for span in operand.spans for number in span)]


def _move_words(move: Move) -> list[int]:
    words = [move.transient | move.whole << 1 | move.scale << 2 | move.kept << 3, move.follower]
    words += [len(move.after), *move.after, len(move.lengths), *move.lengths]
    for operands in (move.sources, move.targets):
        words.append(len(operands))
        for operand in operands:
            words += _operand_words(operand)
    return words


def words_of(plan: Plan) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The plan as csrc/plan.cpp reads it."""
    head = [plan.segments, plan.window, plan.dtype, plan.op, plan.itemsize, plan.size, plan.workspace]
    head += [plan.input_bytes, plan.output_bytes]
    own_counts = plan.count == OWN_COUNTS
    words = [*head, *traits_of(plan).words().tolist(), own_counts]
    for ranks in (unheard(plan), unhearing(plan)):
        words += [len(ranks), *ranks]
    words.append(len(plan.moves))
    for move in plan.moves:
        words += _move_words(move)
    return np.array(words, dtype=np.int64)


def _bytes_at(address: int, nbytes: int) -> memoryview:
    return memoryview((ctypes.c_char * nbytes).from_address(address)).cast("B")


def _custom_call(op: ReduceOp, dtype: int) -> Callable[[int, int, int, int], None]:
    """The user's op on addresses: 1-D arrays over the engine's memory in, the result copied out."""
    element, function = DTYPES[dtype], op.function
    assert function is not None

    def call(target: int, left: int, right: int, nbytes: int) -> None:
        a, b, out = (np.frombuffer(_bytes_at(at, nbytes), dtype=element) for at in (left, right, target))
        a.flags.writeable = b.flags.writeable = False
        out[...] = function(a, b)

    return call


class Prepared:
    """A plan in the native engine's form."""

    __slots__ = ("native", "plan")

    def __init__(self, plan: Plan, op: ReduceOp) -> None:
        self.plan = plan
        custom = _custom_call(op, plan.dtype) if op.function is not None else None
        self.native = _core.Plan(words_of(plan), custom)


class NativePending:
    """A call on the progress thread."""

    __slots__ = ("_engine", "_error", "_prepared", "_task", "_timeout", "_what")

    def __init__(
        self, engine: NativeEngine, task: _core.Task, what: str, timeout: float, prepared: Prepared | None = None
    ) -> None:
        self._engine, self._task, self._what, self._timeout, self._prepared = engine, task, what, timeout, prepared
        self._error: BaseException | None = None  # what it ended with, for every wait after the first

    def done(self) -> bool:
        return self._task.done()

    def wait(self, timeout: float) -> Envelope | None:
        self._outcome(timeout)
        return None

    def _outcome(self, timeout: float) -> Outcome:
        outcome = self._engine.transport.endpoint.wait(self._task, timeout)
        if outcome[0] == TIMED_OUT:
            if not self._task.done():
                told = self._engine.transport.endpoint.late(outcome[1])
                raise self._engine.transport.error(outcome, self._what, told, timeout)
            outcome = self._engine.transport.endpoint.wait(self._task, timeout)  # it ended in the meantime
        if outcome[0] == OK:
            return outcome
        if self._error is None:
            try:
                self._engine.raise_for(outcome, self._what, self._timeout, self._prepared)
            except BaseException as error:
                self._error = error
                raise
        raise self._error


class NativeReceive(NativePending):
    """A receive there, which can be taken back as long as nothing has come for it."""

    __slots__ = ()

    def wait(self, timeout: float) -> Envelope:
        return _envelope(self._outcome(timeout))

    def cancel(self) -> bool:
        return self._engine.transport.endpoint.recall(self._task)


def _receive(exactly: bool) -> str:
    return "recv" if exactly else "recv_any"


def _envelope(outcome: Outcome) -> Envelope:
    """Of the message that a receive or a probe has found."""
    _, source, nbytes, tag = outcome
    return Envelope(source, tag, nbytes)


class NativeEngine:
    """One rank's native engine over the regions `fds` of a communicator's ranks, its own (`region`) among them.

    The descriptors may be closed once it is made; for `pidfds`, `keep` and `wires` see LaneTransport. `label` and
    `members`, its ranks' numbers in the job, tell where a rank is that is waited for in another communicator. A failed
    call breaks the engine: the other ranks are told, and every later call raises ClosedError.
    """

    mpi = False

    def __init__(
        self,
        region: Region,
        fds: Sequence[int],
        *,
        rank: int,
        pidfds: Sequence[int] = (),
        keep: object = None,
        label: str = "",
        members: Sequence[int] = (),
        wires: Wires | None = None,
    ) -> None:
        self.transport = LaneTransport(region, fds, rank=rank, pidfds=pidfds, keep=keep, wires=wires)
        self.transports = tuple(self.transport.name.split("+"))
        self.links, self.place = self.transport.links, self.transport.place
        self._endpoint = self.transport.endpoint
        if members:
            self._endpoint.name(label, list(members))
        slots, self.capacity = _core.geometry(len(fds))
        self.window = min(slots, WINDOW)
        self.far = wires is not None
        self._over: str | None = None  # why it takes no more calls
        self._under_way: deque[tuple[_core.Task, Prepared]] = deque()  # a dropped Work still needs its plan

    @property
    def sequence(self) -> int:
        return self._endpoint.sequence

    @sequence.setter
    def sequence(self, number: int) -> None:
        self._endpoint.sequence = number

    def may_call(self) -> None:
        """Any thread may."""

    def known(self, timeout: float, kind: type[Array], failed: Failed, begin: Begin) -> _core.Known:
        def ended(prepared: Prepared, outcome: Outcome, error: BaseException | None, limit: float) -> None:
            what = f"{prepared.plan.collective} #{self.sequence}"
            try:
                if error is not None:
                    raise error
                self.raise_for(outcome, what, limit, prepared)
            except BaseException as raised:
                failed(what, raised)
                raise

        return _core.Known(self._endpoint, ended, begin, kind, timeout)

    def prepare(self, plan: Plan, op: ReduceOp) -> Prepared:
        return Prepared(plan, op)

    def run(self, prepared: Prepared, source: int, target: int, sequence: int, timeout: float) -> None:
        self._usable()
        outcome = self._endpoint.run(prepared.native, source, target, sequence, timeout)
        if outcome[0] != OK:
            self.raise_for(outcome, f"{prepared.plan.collective} #{sequence}", timeout, prepared)

    def start(self, prepared: Prepared, source: int, target: int, sequence: int, timeout: float) -> NativePending:
        self._usable()
        task = self._endpoint.start(prepared.native, source, target, sequence, timeout)
        while self._under_way and self._under_way[0][0].done():
            self._under_way.popleft()
        self._under_way.append((task, prepared))
        return NativePending(self, task, f"{prepared.plan.collective} #{sequence}", timeout, prepared)

    def send(self, address: int, nbytes: int, to: int, tag: int, timeout: float, synchronous: bool = False) -> None:
        self._usable()
        outcome = self._endpoint.send(to, tag, address, nbytes, timeout, synchronous)
        if outcome[0] != OK:
            self.raise_for(outcome, f"send(to={to}, tag={tag})", timeout)

    def recv(
        self, address: int, nbytes: int, source: int, tag: int, timeout: float, exactly: bool = True
    ) -> Envelope | None:
        self._usable()
        outcome = self._endpoint.recv(source, tag, address, nbytes, timeout, exactly)
        if outcome[0] != OK:
            self.raise_for(outcome, f"{_receive(exactly)} of {nbytes} bytes ({asking(source, tag)})", timeout)
        return None if exactly else _envelope(outcome)

    def probe(self, source: int, tag: int, timeout: float, waits: bool) -> Envelope | None:
        self._usable()
        outcome = self._endpoint.probe(source, tag, waits, timeout)
        if outcome[0] != OK:
            self.raise_for(outcome, f"probe({asking(source, tag)})", timeout)
        return None if outcome[1] < 0 else _envelope(outcome)

    def start_send(
        self, address: int, nbytes: int, to: int, tag: int, timeout: float, synchronous: bool = False
    ) -> NativePending:
        self._usable()
        task = self._endpoint.start_send(to, tag, address, nbytes, timeout, synchronous)
        return NativePending(self, task, f"send(to={to}, tag={tag})", timeout)

    def start_recv(
        self, address: int, nbytes: int, source: int, tag: int, timeout: float, exactly: bool = True
    ) -> NativeReceive:
        self._usable()
        task = self._endpoint.start_recv(source, tag, address, nbytes, timeout, exactly)
        what = f"{_receive(exactly)} of {nbytes} bytes ({asking(source, tag)})"
        return NativeReceive(self, task, what, timeout)

    def allocate(self, nbytes: int) -> Array:
        return self.transport.allocate(nbytes)

    def fail(self, reason: str, *, mismatch: bool = False) -> None:
        if self._over is None:
            self._over = reason
            text = " ".join(reason.split()).encode("utf-8", "replace").decode()
            self._endpoint.propose(MISMATCH if mismatch else GAVE_UP, text)

    def hold(self, memory: object) -> None:
        """What ended, well or not, touches no memory any more."""

    def revoke(self) -> None:
        self._endpoint.propose(REVOKED, "")

    def leaving(self) -> None:
        self._endpoint.leaving()

    def survivors(self) -> Survivors:
        return LaneSurvivors(self.transport)

    def flown(self) -> dict[int, list[Flown]]:
        peers = range(self.transport.size)
        self._endpoint.ask()
        return {peer: [Flown(*call) for call in self._endpoint.calls(peer, SHOWN)] for peer in peers}

    def close(self) -> None:
        self._over = self._over or "it was closed"
        self._endpoint.close()
        self._under_way.clear()

    def raise_for(self, outcome: Outcome, what: str, timeout: float, prepared: Prepared | None = None) -> NoReturn:
        """Raise what an outcome that is not ok stands for, after telling the others."""
        status, peer, nbytes, wanted = outcome
        error: BaseException
        if status == OP_FAILED and prepared is not None:
            raised, prepared.native.raised = prepared.native.raised, None
            assert isinstance(raised, BaseException)
            error = raised
        else:
            error = self.transport.error(outcome, what, self._told(status, peer, nbytes, wanted), timeout)
        if status == DEPARTED:
            self._endpoint.propose_failed(peer)
            error = self.transport.sentence(f"rank {self.transport.rank} in {what}")
        if status in (DECIDED, DEPARTED):
            self._over = self._over or str(error)
        elif status not in (CLOSED, LENGTH, RECALLED, TRUNCATED):
            mismatch = isinstance(error, MismatchError)
            self.fail(str(error) if mismatch else f"{type(error).__name__}: {error}", mismatch=mismatch)
            error = self._judged(error, what)
        raise error

    def _judged(self, error: BaseException, what: str) -> BaseException:
        """What to raise for an error of this rank where another's was the verdict. Whose time is up says so itself,
        unless there is more to say than that another's was up first."""
        verdict = self.transport.verdict()
        if isinstance(error, MismatchError):
            own = verdict.rank == self.transport.rank and verdict.why == MISMATCH
        else:
            own = not isinstance(error, TimeoutError) or verdict.why == GAVE_UP
        return error if own else self.transport.sentence(f"rank {self.transport.rank} in {what}")

    def _usable(self) -> None:
        if self._over is not None:
            raise ClosedError(f"rank {self.transport.rank}: this communicator cannot be used: {self._over}")

    def _told(self, status: int, peer: int, nbytes: int, wanted: int) -> str:
        """What the records say of an outcome."""
        if status == MISMATCHED:
            return self._endpoint.explain(peer, nbytes, wanted)
        return self._endpoint.late(peer) if status == TIMED_OUT else ""
