"""The bridge to the engine in C++ (`collx._core`): plans as words, outcomes as exceptions."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from collx import _core
from collx.collectives import COLLECTIVES
from collx.errors import (
    AbortedError,
    ClosedError,
    CollxError,
    MismatchError,
    RankFailedError,
    TimeoutError,
)
from collx.plan import Lane, Memory, Move, Operand, Plan
from collx.types import DTYPES, ReduceOp

Segment = _core.Segment
segment_bytes = _core.segment_bytes

# Status of csrc/wait.hpp, in its order.
_OK, _TIMED_OUT, _DIED, _DEPARTED, _FAILED, _MISMATCHED, _LENGTH, _INTERRUPTED, _CLOSED, _OP_FAILED = range(10)

_CODES = {name: code for code, name in enumerate(COLLECTIVES)}
_NAMES = list(COLLECTIVES)


def _fingerprint(plan: Plan) -> int:
    """What all ranks of a collective must agree on, in 64 bits that do not depend on the process (FNV-1a)."""
    agreed = (plan.collective, plan.algorithm, plan.size, plan.root, plan.dtype, plan.op, plan.slices, plan.window)
    value = 0xCBF29CE484222325
    for byte in repr((*agreed, _agreed_bytes(plan))).encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def _agreed_bytes(plan: Plan) -> int:
    """The size that is the same on every rank, where there is one; elsewhere each message's length is checked."""
    spec = COLLECTIVES[plan.collective]
    if spec.reduces:
        return plan.input_bytes
    return plan.output_bytes if plan.collective in ("broadcast", "all_gather") else 0


def _operand_words(operand: Operand) -> list[int]:
    if isinstance(operand, Lane):
        return [operand.peer]
    return [-1, *(number for span in operand.spans for number in span)]


def _move_words(move: Move) -> list[int]:
    words = [move.transient | move.whole << 1 | move.scale << 2, move.follower]
    words += [len(move.after), *move.after, len(move.lengths), *move.lengths]
    for operands in (move.sources, move.targets):
        words.append(len(operands))
        for operand in operands:
            words += _operand_words(operand)
    return words


def words_of(plan: Plan) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The plan as csrc/plan.cpp reads it."""
    head = [plan.slices, plan.window, plan.dtype, plan.op, plan.itemsize, plan.size, plan.workspace]
    fingerprint = _fingerprint(plan)
    words = [*head, fingerprint - 2**64 if fingerprint >= 2**63 else fingerprint, _CODES[plan.collective]]
    words.append(len(plan.moves))
    for move in plan.moves:
        words += _move_words(move)
    return np.array(words, dtype=np.int64)


def _bytes_at(address: int, nbytes: int) -> memoryview:
    import ctypes

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

    __slots__ = ("_engine", "_task", "_what", "prepared", "sequence")

    def __init__(self, engine: NativeEngine, task: Any, what: str, prepared: Prepared | None, sequence: int) -> None:
        self._engine, self._task, self._what = engine, task, what
        self.prepared, self.sequence = prepared, sequence

    def done(self) -> bool:
        return bool(self._task.done())

    def wait(self, timeout: float) -> None:
        status, peer = self._engine.endpoint.wait(self._task, timeout)
        if status:
            self._engine.raise_for(status, peer, self._what, self.prepared, timeout)


class NativeEngine:
    """One rank's native engine over the segments `fds` of a communicator's ranks, its own (`segment`) among them.

    The descriptors may be closed once it is made."""

    transports: tuple[str, ...] = ("shm",)

    def __init__(self, segment: Any, fds: Sequence[int], *, rank: int) -> None:
        self.rank, self.size = rank, len(fds)
        slots, self.capacity = _core.geometry(self.size)
        self.window = min(slots, 2)
        oversubscribed = self.size > len(os.sched_getaffinity(0))
        self.endpoint = _core.Endpoint(segment, list(fds), oversubscribed)
        self._under_way: deque[tuple[Any, Any]] = deque()  # tasks, and what they use: a dropped Work still completes

    def prepare(self, plan: Plan, op: ReduceOp) -> Prepared:
        return Prepared(plan, op)

    def run(self, prepared: Prepared, source: int, target: int, sequence: int, timeout: float) -> None:
        status, peer = self.endpoint.run(prepared.native, source, target, sequence, timeout)
        if status:
            self.raise_for(status, peer, f"{prepared.plan.collective} #{sequence}", prepared, timeout)

    def start(self, prepared: Prepared, source: int, target: int, sequence: int, timeout: float) -> NativePending:
        task = self.endpoint.start(prepared.native, source, target, sequence, timeout)
        self._keep(task, prepared)
        return NativePending(self, task, f"{prepared.plan.collective} #{sequence}", prepared, sequence)

    def send(self, address: int, nbytes: int, to: int, tag: int, timeout: float) -> None:
        status, peer = self.endpoint.send(to, tag, address, nbytes, timeout)
        if status:
            self.raise_for(status, peer, f"send(to={to}, tag={tag})", None, timeout)

    def recv(self, address: int, nbytes: int, source: int, tag: int, timeout: float) -> None:
        status, peer = self.endpoint.recv(source, tag, address, nbytes, timeout)
        if status:
            self.raise_for(status, peer, f"recv(source={source}, tag={tag})", None, timeout)

    def start_send(self, address: int, nbytes: int, to: int, tag: int, timeout: float) -> NativePending:
        task = self.endpoint.start_send(to, tag, address, nbytes, timeout)
        return NativePending(self, task, f"send(to={to}, tag={tag})", None, 0)

    def start_recv(self, address: int, nbytes: int, source: int, tag: int, timeout: float) -> NativePending:
        task = self.endpoint.start_recv(source, tag, address, nbytes, timeout)
        return NativePending(self, task, f"recv(source={source}, tag={tag})", None, 0)

    def fail(self, reason: str) -> None:
        self.endpoint.fail(reason.replace("\n", " ")[:250])

    def close(self) -> None:
        self.endpoint.close()
        self._under_way.clear()

    def _keep(self, task: Any, used: Any) -> None:
        while self._under_way and self._under_way[0][0].done():
            self._under_way.popleft()
        self._under_way.append((task, used))

    def raise_for(self, status: int, peer: int, what: str, prepared: Prepared | None, timeout: float) -> None:
        """Raise the exception for a status that is not ok; one line that names rank, peer, call and remedy."""
        here = f"rank {self.rank} in {what}"
        if status == _TIMED_OUT:
            there = f": rank {peer} {self._whereabouts(peer)}" if peer >= 0 else ""
            raise TimeoutError(f"{here} waited {timeout:g} s{there}; is every rank calling it, or is timeout= too short?")
        if status == _DIED:
            raise RankFailedError(f"{here}: rank {peer} died (killed, or exited without closing)", (peer,))
        if status == _DEPARTED:
            raise RankFailedError(f"{here}: rank {peer} has closed this communicator; did it skip a call?", (peer,))
        if status == _FAILED:
            raise AbortedError(f"{here}: rank {peer} gave up: {self.endpoint.reason(peer)}")
        if status == _MISMATCHED:
            raise MismatchError(
                f"{here}: rank {peer} sent a message of another call; it {self._whereabouts(peer)}; "
                "check that all ranks call the same collectives with the same count, dtype, op and root"
            )
        if status == _LENGTH:
            raise MismatchError(f"{here}: the message from rank {peer} has another length than the receive buffer")
        if status == _OP_FAILED and prepared is not None:
            raised, prepared.native.raised = prepared.native.raised, None
            raise raised
        if status == _CLOSED:
            raise ClosedError(f"{here}: the communicator was closed meanwhile")
        raise CollxError(f"{here}: unexpected status {status} about rank {peer}")

    def _whereabouts(self, peer: int) -> str:
        sequence, code = self.endpoint.call(peer)
        return f"was last seen in {_NAMES[code]} #{sequence}" if sequence else "has not called any collective yet"
