"""How torch's calls become collx's, whichever they are."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import collx
from collx.compat.torch.errors import as_torch
from collx.compat.torch.work import UNLIMITED, CollxWork, Finish, Waiter

UNDER_WAY = SimpleNamespace(asyncOp=True, timeout=UNLIMITED)  # for calls to which torch gives no options


class Call(NamedTuple):
    """A call to make: a method with its arguments but async_op= and timeout=, the tensors that torch passed for its
    result, and what brings that there."""

    method: Callable[..., Any]
    tensors: Sequence[Any]
    finish: Finish | None = None


class Alone:
    """A lock; what fails between ranks while it is held is a torch.distributed.DistBackendError too. A generator would
    take as long as a small collective."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

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
        self._noted: list[Call] | None = None  # while calls are coalesced
        self._coalesced = CollxWork(())

    def alone(self) -> Alone:
        """A block in which nobody else makes calls on `comm`, and errors are torch's."""
        return self._alone

    def _run(self, opts: Any, call: Call) -> CollxWork | None:
        """Make a call: under way or, where `opts` has asyncOp false, at once."""
        if self._noted is not None:
            return self._note(opts, [call])
        limit = seconds(opts.timeout)
        if opts.asyncOp:
            with self.alone():
                work = call.method(async_op=True, timeout=limit)
            return CollxWork((work,), call.tensors, call.finish, self._waiter)
        with self.alone():
            call.method(timeout=limit)
        if call.finish is not None:
            call.finish()
        return CollxWork((), call.tensors)

    def _fused(self, opts: Any, calls: Sequence[Call]) -> CollxWork | None:
        """Make calls as one: those that are alike and small are packed into few."""
        return self._make_fused(opts, calls) if self._noted is None else self._note(opts, calls)

    def _make_fused(self, opts: Any, calls: Sequence[Call]) -> CollxWork:
        with self.alone(), self.comm.group(async_op=opts.asyncOp, timeout=seconds(opts.timeout)) as group:
            for call in calls:
                call.method()

        def finish() -> None:
            for call in calls:
                if call.finish is not None:
                    call.finish()

        tensors = [tensor for call in calls for tensor in call.tensors]
        if opts.asyncOp:
            assert group.work is not None
            return CollxWork((group.work,), tensors, finish, self._waiter)
        finish()
        return CollxWork((), tensors)

    def _note(self, opts: Any, calls: Sequence[Call]) -> CollxWork | None:
        assert self._noted is not None
        self._noted.extend(calls)
        return self._coalesced if opts.asyncOp else None

    def _start_coalescing(self, device: Any) -> None:
        """Calls from now on are noted only, and those that are under way end together."""
        self._noted, self._coalesced = [], CollxWork((_NotStarted(),))

    def _end_coalescing(self, device: Any) -> CollxWork:
        """Make them."""
        calls, self._noted = self._noted, None
        if calls is None:
            raise RuntimeError("_end_coalescing without _start_coalescing before")
        return self._coalesced.become(self._make_fused(UNDER_WAY, calls))


class _NotStarted:
    """Stands where a Work of collx's will be."""

    def done(self) -> bool:
        return False

    def wait(self, timeout: float | None = None) -> None:
        raise RuntimeError("a coalesced call ends with the others, after the block: wait then")


def seconds(timeout: datetime.timedelta) -> float | None:
    """torch has -1 ms for the group's own timeout."""
    return timeout.total_seconds() if timeout > UNLIMITED else None
