"""A group: calls and messages that are noted first and then made together, packed into few."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from collx._core import Notes
from collx.buffers import Buffer, address_of
from collx.calls import Call
from collx.checks import FOREVER, seconds
from collx.fusion import Packed, Step
from collx.known import constant
from collx.types import Array
from collx.work import Work

if TYPE_CHECKING:
    from collx.messages import Messages


class Group:
    """What `Communicator.group` returns, a context manager: see there. `work` is, after a block of an asynchronous
    group, the Work that ends with all its calls, whose result is None. It may be entered again."""

    def __init__(self, member: Messages, async_op: bool, timeout: float | None) -> None:
        self._member, self._async_op = member, async_op
        self._timeout = None if timeout is None else seconds(timeout)
        self.work: Work | None = None

    def __enter__(self) -> Self:
        self._member._enter(self)
        self._end = End()
        self._on_gpu: dict[int, Call] = {}  # by number
        self._messages: list[tuple[Callable[..., Any], Buffer, bool]] = []
        self._book = self._member._fusion.book
        self._book.end = self._end
        self.work = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._member._leave()
        notes = self._book.notes.take()
        self._book.end = None
        if error is not None:
            self._end.drop(f"{type(error).__name__} left its block")
            return
        try:
            self._start(notes)
        except BaseException as failure:
            self._end.drop(f"it failed with {type(failure).__name__}: {failure}")
            raise

    # -- inside the block ----------------------------------------------------------------------------

    def add(self, call: Call, async_op: bool, timeout: float | None, given: tuple[Any, ...]) -> Any:
        member, request, where, notes = self._member, call.request, call.where, self._book.notes
        if timeout is not None:
            notes.within(seconds(timeout))
        part = member._fusion.part(request, where and where.ordinal)
        if where is not None:
            self._on_gpu[len(notes)] = call
        else:
            if request.algorithm is not None:
                member._prepared(request)  # raises what is wrong with it
            if given and constant(given[2:]):
                value = None if call.fill is None else call.fill[1]
                copied = call.before is not None
                member._fusion.known.remember(part, call.result, (request.collective, *given), copied, value)
            call.prepare(None)
        notes.note(part, call.source, call.target, call.keep, call.result)
        return Work(self._end, call.result) if async_op else call.result

    def message(
        self, begin: Callable[..., Any], memory: Buffer, result: Any, async_op: bool, timeout: float | None
    ) -> Any:
        if timeout is not None:
            self._book.notes.within(seconds(timeout))
        self._messages.append((begin, memory, result is not None))
        return Work(self._end, result) if async_op else result

    # -- when it is left -----------------------------------------------------------------------------

    def _start(self, notes: Notes) -> None:
        member, fusion = self._member, self._member._fusion
        member._alive()
        if not notes.disjoint([(memory.address, memory.array.nbytes, into) for _, memory, into in self._messages]):
            raise ValueError("calls of a group overlap: one writes what another one reads or writes; make two groups")
        limit = min(notes.limit, self._timeout or FOREVER)
        limit = member.timeout if limit == FOREVER else limit
        parts = notes.parts()
        steps = fusion.steps(parts)
        sizes = [step.nbytes for step in steps if isinstance(step, Packed)]
        if sizes and not self._async_op:  # one after the other, in one buffer
            sizes = [max(sizes)]
        buffers = [fusion.borrow(nbytes) for nbytes in sizes]
        calls = _Calls(member, notes, parts, self._on_gpu, limit)
        try:
            works = [begin(timeout=limit) for begin, _, _ in self._messages]
            if self._async_op:
                works += [calls.start(step, buffers) for step in steps]
            else:
                for step in steps:
                    calls.run(step, buffers)
                for work in works:
                    work.wait()
        except BaseException as error:  # as KeyboardInterrupt: others go on with calls that this rank has not made
            member._engine.hold((notes, buffers))
            member._break("a group", error)
            raise

        def finish() -> None:
            calls.unpack()
            while buffers:  # each once, even if an exception comes between
                fusion.give_back(buffers.pop())

        self._end.begin(works if self._async_op else (), finish)
        if self._async_op:
            self.work = member._watched("a group", self._end, None, (notes, self._messages, buffers))
        else:
            self._end.wait(FOREVER)


class _Calls:
    """The calls of a group as they are made."""

    def __init__(
        self, member: Messages, notes: Notes, parts: tuple[Any, ...], on_gpu: dict[int, Call], limit: float
    ) -> None:
        self._member, self._notes, self._parts, self._on_gpu, self._limit = member, notes, parts, on_gpu, limit
        self._packed: list[tuple[Packed, int]] = []  # that are still to be unpacked, and from where

    def run(self, step: Step, buffers: Sequence[Array]) -> None:
        if not isinstance(step, Packed):
            self._member._do(self._alone(step), False, self._limit)
            return
        at = address_of(buffers[0])
        step.gather.make(self._notes, at, inwards=True)
        if step.recall(self._member.bound, at)(False, self._limit) is NotImplemented:
            self._member._do(step.call(at), False, self._limit)
        step.scatter.make(self._notes, at, inwards=False)

    def start(self, step: Step, buffers: Sequence[Array]) -> Work:
        if not isinstance(step, Packed):
            work: Work = self._member._do(self._alone(step), True, self._limit)
            return work
        at = address_of(buffers[len(self._packed)])
        step.gather.make(self._notes, at, inwards=True)
        work = self._member._do(step.call(at), True, self._limit)
        self._packed.append((step, at))
        return work

    def unpack(self) -> None:
        for step, at in self._packed:
            step.scatter.make(self._notes, at, inwards=False)
        self._packed.clear()

    def _alone(self, number: int) -> Call:
        on_gpu = self._on_gpu.get(number)
        return on_gpu or Call(self._parts[number].request, *self._notes.addresses(number), None, ())


class End:
    """The end of a group, as a Pending."""

    def __init__(self) -> None:
        self._works: Sequence[Work] | None = None
        self._finish: Callable[[], None] | None = None
        self._finishing = False
        self._dropped: str | None = None
        self._lock = threading.RLock()  # a signal handler may wait inside a wait

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
            self.wait(FOREVER)
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
            if self._finishing:
                raise ValueError("a signal handler waits for a group that the wait it interrupted is just unpacking")
            self._finishing = True
            try:
                if self._finish is not None:
                    self._finish()  # again where an exception got out of it
                self._finish = None
            finally:
                self._finishing = False
