"""A group: calls and messages that are noted first and then made together, packed into few."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from collx.buffers import PLAIN, Buffer, address_of
from collx.calls import Call
from collx.checks import seconds
from collx.fusion import Packed, Part, Step
from collx.types import Array
from collx.work import Work

if TYPE_CHECKING:
    from collx.messages import Messages


class Group:
    """What `Communicator.group` returns, a context manager: see there. `work` is, after a block of an asynchronous
    group, the Work that ends with all its calls, whose result is None. It may be entered again."""

    def __init__(self, member: Messages, async_op: bool, timeout: float | None) -> None:
        self._member, self._async_op = member, async_op
        self._limit = member.timeout if timeout is None else seconds(timeout)
        self.work: Work | None = None
        self._clear()

    def _clear(self) -> None:
        self._parts: list[Part] = []
        self._sources: list[int] = []
        self._targets: list[int] = []
        self._calls: list[Call] = []
        self._messages: list[tuple[Callable[..., Any], Buffer, bool]] = []
        self._end = _End()

    def __enter__(self) -> Self:
        self._member._enter(self)
        self._clear()
        self.work = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._member._leave()
        if error is not None:
            self._end.drop(f"{type(error).__name__} left its block")
            return
        try:
            self._start()
        except BaseException as failure:
            self._end.drop(f"it failed with {type(failure).__name__}: {failure}")
            raise

    # -- inside the block ----------------------------------------------------------------------------

    def add(self, call: Call, async_op: bool, timeout: float | None) -> Any:
        """Note a call; what its method is to return."""
        self._timeout(timeout)
        member, request = self._member, call.request
        where = call.where
        if request.algorithm is not None and where is None:
            member._prepared(request)  # raises what is wrong with it
        if where is None and (call.before is not None or call.fill is not None):
            call.prepare(None)  # it reads and writes what the checks below do not see
            call = replace(call, before=None, fill=None)
        self._parts.append(member._fusion.part(request, where and where.ordinal))
        self._sources.append(call.source)
        self._targets.append(call.target)
        self._calls.append(call)
        return Work(self._end, call.result) if async_op else call.result

    def message(
        self, send: Callable[..., Any], memory: Buffer, result: Any, async_op: bool, timeout: float | None
    ) -> Any:
        """Note a message, which `send` begins, of `memory`; `result` is what it is received into, None for a send."""
        self._timeout(timeout)
        self._messages.append((send, memory, result is not None))
        return Work(self._end, result) if async_op else result

    def _timeout(self, timeout: float | None) -> None:
        if timeout is not None and seconds(timeout) != self._limit:
            raise ValueError(
                f"timeout is {timeout}, but calls in a group have the group's: comm.group(timeout={timeout})"
            )

    # -- when it is left -----------------------------------------------------------------------------

    def _start(self) -> None:
        member = self._member
        member._alive()
        self._disjoint()
        steps = member._fusion.steps(self._parts)
        sizes = [step.nbytes for step in steps if isinstance(step, Packed)]
        if not self._async_op:  # one after the other, in one buffer
            sizes = [max(sizes)] if sizes else []
        buffers = [member._fusion.borrow(nbytes) for nbytes in sizes]
        try:
            works = [send(timeout=self._limit) for send, _, _ in self._messages]
            if self._async_op:
                unpack = self._begin(steps, buffers, works)
            else:
                self._run(steps, buffers)
                unpack = []
        except BaseException as error:  # as KeyboardInterrupt: others go on with calls that this rank has not made
            member._engine.hold((self._calls, buffers))
            member._break("a group", error)
            raise

        def finish() -> None:
            for scatter in unpack:
                scatter()
            for buffer in buffers:
                member._fusion.give_back(buffer)

        self._end.begin(works, finish)
        keep = (self._calls, self._messages, buffers)
        self.work = member._watched("a group", self._end, None, keep)
        if not self._async_op:
            self.work = member._finished("a group", self.work)

    def _run(self, steps: Sequence[Step], buffers: Sequence[Array]) -> None:
        sources, targets = self._addresses()
        for step in steps:
            if isinstance(step, Packed):
                at = address_of(buffers[0])
                step.gather.make(sources, at, inwards=True)
                self._member._do(_call(step, buffers[0]), False, self._limit)
                step.scatter.make(targets, at, inwards=False)
            else:
                self._member._do(self._calls[step], False, self._limit)

    def _begin(self, steps: Sequence[Step], buffers: Sequence[Array], works: list[Work]) -> list[Callable[[], None]]:
        """Start all calls; how to unpack those that are packed."""
        sources, targets = self._addresses()
        unpack: list[Callable[[], None]] = []
        for step in steps:
            if isinstance(step, Packed):
                buffer = buffers[len(unpack)]
                at = address_of(buffer)
                step.gather.make(sources, at, inwards=True)
                works.append(self._member._do(_call(step, buffer), True, self._limit))
                unpack.append(partial(step.scatter.make, targets, at, inwards=False))
            else:
                works.append(self._member._do(self._calls[step], True, self._limit))
        return unpack

    def _addresses(self) -> tuple[Array, Array]:
        return np.array(self._sources, np.uint64), np.array(self._targets, np.uint64)

    def _disjoint(self) -> None:
        """Raise ValueError where a call writes what another one of the group reads or writes."""
        spans: list[tuple[int, int, bool]] = []
        for part, source, target in zip(self._parts, self._sources, self._targets, strict=True):
            if part.device is None:
                spans += part.spans(source, target)
        for _, memory, writes in self._messages:
            spans.append((memory.address, memory.address + memory.array.nbytes, writes))
        if len(spans) < 2:
            return
        begins, ends, writes_ = (np.array(column) for column in zip(*spans, strict=True))
        order = np.argsort(begins, kind="stable")
        begins, ends, writes_ = begins[order], ends[order], writes_[order]
        every = np.maximum.accumulate(ends)[:-1]
        written = np.maximum.accumulate(np.where(writes_, ends, 0))[:-1]
        if (begins[1:] < np.where(writes_[1:], every, written)).any():
            raise ValueError("calls of a group overlap: one writes what another one reads or writes; make two groups")


class _End:
    """The end of a group, as a Pending."""

    def __init__(self) -> None:
        self._works: Sequence[Work] | None = None
        self._finish: Callable[[], None] | None = None
        self._dropped: str | None = None
        self._lock = threading.Lock()

    def begin(self, works: Sequence[Work], finish: Callable[[], None]) -> None:
        self._works, self._finish = works, finish

    def drop(self, why: str) -> None:
        self._dropped = why

    def done(self) -> bool:
        if self._dropped is not None:
            return True
        if self._works is None or not all(work.done() for work in self._works):
            return False
        with contextlib.suppress(Exception):
            self.wait(seconds(None))
        return True

    def wait(self, timeout: float) -> None:
        if self._dropped is not None:
            raise ValueError(f"this call was dropped with its group: {self._dropped}")
        if self._works is None:
            raise ValueError("a call in a group ends when the group's block is left: wait after that")
        limit = time.monotonic() + timeout
        for work in self._works:
            work.wait(max(limit - time.monotonic(), 1e-6))
        with self._lock:
            if self._finish is not None:
                self._finish()
                self._finish = None


def _call(step: Packed, buffer: Array) -> Call:
    at = address_of(buffer)
    return Call(step.request, at + step.source, at + step.target, None, (Buffer(buffer, buffer, buffer, PLAIN, at),))
