"""How torch's calls become collx's, whichever they are."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple, Self

import collx
from collx.compat.torch.errors import as_torch
from collx.compat.torch.tensors import Spread
from collx.compat.torch.work import GLANCE, UNLIMITED, CollxWork, Finish, Waiter

UNDER_WAY = SimpleNamespace(asyncOp=True, timeout=UNLIMITED)  # for calls to which torch gives no options


class Call(NamedTuple):
    """A call to make: a method with its arguments but async_op= and timeout=, the tensors that torch passed for its
    result, and what brings that there."""

    method: Callable[..., Any]
    tensors: Sequence[Any]
    finish: Finish | None = None


class Alone:
    """A lock; what fails between ranks while it is held is a torch.distributed.DistBackendError too. A generator would
    take as long as a small collective. A signal handler's call gets through, for collx to say that it is within another
    one; not into a group, which would take it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.fusing = False

    def __enter__(self) -> Self:
        self._lock.acquire()
        if self.fusing:
            self._lock.release()
            raise RuntimeError("a signal handler called torch.distributed inside a call on the same group")
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._lock.release()
        if isinstance(error, collx.CollxError):
            as_torch(error)


class Calls:
    """Makes calls on `comm`, one after another, whichever threads they come from."""

    def __init__(self, comm: collx.Communicator, name: str) -> None:
        self.comm = comm
        self._alone = Alone()
        self._waiter = Waiter(f"collx futures of group {name}")
        self._glancing = Waiter(f"collx futures of messages of group {name}", GLANCE)  # which end in any order
        self._block = _Block()
        self._spread = Spread()

    def alone(self) -> Alone:
        """A block in which nobody else makes calls on `comm`, and errors are torch's."""
        return self._alone

    def _run(self, opts: Any, call: Call, waiter: Waiter | None = None) -> CollxWork | None:
        """Make a call: under way or, where `opts` has asyncOp false, at once."""
        if self._block.calls is not None:
            return self._note(opts, [call])
        limit = seconds(opts.timeout)
        if opts.asyncOp:
            with self.alone():
                work = call.method(async_op=True, timeout=limit)
            return CollxWork((work,), call.tensors, call.finish, waiter or self._waiter)
        with self.alone():
            call.method(timeout=limit)
        if call.finish is not None:
            call.finish()
        return CollxWork((), call.tensors)

    def _fused(self, opts: Any, calls: Sequence[Call]) -> CollxWork | None:
        """Make calls as one: those that are alike and small are packed into few."""
        return self._make_fused(opts, calls) if self._block.calls is None else self._note(opts, calls)

    def _make_fused(self, opts: Any, calls: Sequence[Call], waiter: Waiter | None = None) -> CollxWork:
        with self.alone() as alone:
            alone.fusing = True
            try:
                with self.comm.group(async_op=opts.asyncOp, timeout=seconds(opts.timeout)) as group:
                    for call in calls:
                        call.method()
            finally:
                alone.fusing = False

        def finish() -> None:
            for call in calls:
                if call.finish is not None:
                    call.finish()

        tensors = [tensor for call in calls for tensor in call.tensors]
        if opts.asyncOp:
            assert group.work is not None
            return CollxWork((group.work,), tensors, finish, waiter or self._waiter)
        finish()
        return CollxWork((), tensors)

    def _note(self, opts: Any, calls: Sequence[Call]) -> CollxWork | None:
        block = self._block
        assert block.calls is not None
        block.calls.extend(calls)
        return block.work if opts.asyncOp else None

    def _start_coalescing(self, device: Any) -> None:
        """This thread's calls from now on are noted only, and those that are under way end together."""
        self._block.calls, self._block.work = [], CollxWork((_NotStarted(),))

    def _end_coalescing(self, device: Any) -> CollxWork:
        """Make them."""
        calls, work = self._block.calls, self._block.work
        if calls is None or work is None:
            raise RuntimeError("_end_coalescing without _start_coalescing before")
        self._block.calls = self._block.work = None
        try:
            return work.become(self._make_fused(UNDER_WAY, calls, self._glancing))
        except BaseException as error:
            work.fail(error)
            raise


class _Block(threading.local):
    """What this thread coalesces: calls, and their Work; None outside."""

    calls: list[Call] | None = None
    work: CollxWork | None = None


class _NotStarted:
    """Stands where a Work of collx's will be."""

    def done(self) -> bool:
        return False

    def wait(self, timeout: float | None = None) -> None:
        raise RuntimeError("a coalesced call ends with the others, after the block: wait then")


def seconds(timeout: datetime.timedelta) -> float | None:
    """torch has -1 ms for the group's own timeout."""
    return timeout.total_seconds() if timeout > UNLIMITED else None
