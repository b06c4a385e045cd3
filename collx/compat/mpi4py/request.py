"""Requests: what has been started and not yet been waited for."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, Self

from collx.compat.mpi4py import errors
from collx.compat.mpi4py.constants import ERR_IN_STATUS, ERR_REQUEST, UNDEFINED
from collx.compat.mpi4py.handle import Handle
from collx.compat.mpi4py.operation import Generalized, Operation, Persistent
from collx.compat.mpi4py.status import Status

Statuses = list[Status] | tuple[Status, ...] | None

_SPINS, _YIELDS = 50, 100  # looks of who waits for several, before it sleeps between them
_NAP, _SLEEP = 20e-6, 500e-6  # seconds: its shortest sleep and its longest


class Request(Handle):
    """What stands for an operation until that is done. Null requests, and persistent ones that are not started, are
    taken for done where one is waited for, and left out where one of several is."""

    null = "REQUEST_NULL"
    invalid = ERR_REQUEST

    # -- one -------------------------------------------------------------------------------------------

    def Wait(self, status: Status | None = None) -> Literal[True]:
        _wait(self, status)
        return True

    def wait(self, status: Status | None = None) -> Any:
        """The object that was received, None where there is none."""
        return _result(_wait(self, status))

    def Test(self, status: Status | None = None) -> bool:
        return _test(self, status)[0]

    def test(self, status: Status | None = None) -> tuple[bool, Any | None]:
        """Whether it is done, and what `wait` returns."""
        done, operation = _test(self, status)
        return done, _result(operation)

    def Get_status(self, status: Status | None = None) -> bool:
        """As Test, but the request remains."""
        operation = _pending(self)
        if operation is None:
            _or_new(status)._tell()
        elif not operation.test():
            return False
        else:
            operation.peek(_or_new(status))
        return True

    def Cancel(self) -> None:
        """Call off what nothing has come of yet; it then is done, and its status says so."""
        self._kept().cancel()

    def Free(self) -> None:
        """Let what it stands for take its course. Raises NotImplementedError where that needs somebody to wait for it:
        what comes for a datatype with gaps is put in its place then."""
        self._kept().free()
        self._it = None

    # -- one of several --------------------------------------------------------------------------------

    @classmethod
    def Waitany(cls, requests: Sequence[Request], status: Status | None = None) -> int:
        """The index of one that is done, UNDEFINED where there is none to wait for."""
        return _wait_any(requests, status)[0]

    @classmethod
    def waitany(cls, requests: Sequence[Request], status: Status | None = None) -> tuple[int, Any]:
        index, operation = _wait_any(requests, status)
        return index, _result(operation)

    @classmethod
    def Testany(cls, requests: Sequence[Request], status: Status | None = None) -> tuple[int, bool]:
        return _test_any(requests, status)[:2]

    @classmethod
    def testany(cls, requests: Sequence[Request], status: Status | None = None) -> tuple[int, bool, Any | None]:
        index, done, operation = _test_any(requests, status)
        return index, done, _result(operation)

    @classmethod
    def Get_status_any(cls, requests: Sequence[Request], status: Status | None = None) -> tuple[int, bool]:
        pending = _active(requests)
        for index, operation in _done(pending):
            operation.peek(_or_new(status))
            return index, True
        if not pending:
            _or_new(status)._tell()
        return UNDEFINED, not pending

    # -- all of several --------------------------------------------------------------------------------

    @classmethod
    def Waitall(cls, requests: Sequence[Request], statuses: Statuses = None) -> Literal[True]:
        _wait_all(requests, statuses)
        return True

    @classmethod
    def waitall(cls, requests: Sequence[Request], statuses: Statuses = None) -> list[Any]:
        return [_result(operation) for operation in _wait_all(requests, statuses)]

    @classmethod
    def Testall(cls, requests: Sequence[Request], statuses: Statuses = None) -> bool:
        return cls.testall(requests, statuses)[0]

    @classmethod
    def testall(cls, requests: Sequence[Request], statuses: Statuses = None) -> tuple[bool, list[Any] | None]:
        if not all(operation.test() for _, operation in _active(requests)):
            return False, None
        return True, cls.waitall(requests, statuses)

    @classmethod
    def Get_status_all(cls, requests: Sequence[Request], statuses: Statuses = None) -> bool:
        pending = _active(requests)
        if not all(operation.test() for _, operation in pending):
            return False
        told = _statuses(statuses, len(requests))
        for status in told:
            status._tell()
        for index, operation in pending:
            operation.peek(told[index])
        return True

    # -- those of several that are done ----------------------------------------------------------------

    @classmethod
    def Waitsome(cls, requests: Sequence[Request], statuses: Statuses = None) -> list[int] | None:
        """The indices of those that are done, at least one; None where there is none to wait for."""
        return _some(requests, statuses, _until_any)[0]

    @classmethod
    def waitsome(
        cls, requests: Sequence[Request], statuses: Statuses = None
    ) -> tuple[list[int] | None, list[Any] | None]:
        indices, operations = _some(requests, statuses, _until_any)
        return indices, None if indices is None else [_result(operation) for operation in operations]

    @classmethod
    def Testsome(cls, requests: Sequence[Request], statuses: Statuses = None) -> list[int] | None:
        return _some(requests, statuses, None)[0]

    @classmethod
    def testsome(
        cls, requests: Sequence[Request], statuses: Statuses = None
    ) -> tuple[list[int] | None, list[Any] | None]:
        indices, operations = _some(requests, statuses, None)
        return indices, None if indices is None else [_result(operation) for operation in operations]

    @classmethod
    def Get_status_some(cls, requests: Sequence[Request], statuses: Statuses = None) -> list[int] | None:
        pending = _active(requests)
        done = _done(pending)
        for status, (_, operation) in zip(_statuses(statuses, len(done)), done, strict=False):
            operation.peek(status)
        return [index for index, _ in done] if pending else None

    cancel, get_status = Cancel, Get_status
    get_status_any, get_status_all, get_status_some = Get_status_any, Get_status_all, Get_status_some


class Prequest(Request):
    """A request that can be started again and again."""

    @classmethod
    def _may_name(cls, it: Any) -> bool:
        return it is None or isinstance(it, Persistent)

    def Start(self) -> None:
        self._kept().start()

    @classmethod
    def Startall(cls, requests: Sequence[Prequest]) -> None:
        for request in requests:
            request.Start()

    def Pready(self, partition: int) -> None:
        raise NotImplementedError("collx.compat.mpi4py has no MPI.Prequest.Pready")

    def Pready_range(self, partition_low: int, partition_high: int) -> None:
        raise NotImplementedError("collx.compat.mpi4py has no MPI.Prequest.Pready_range")

    def Pready_list(self, partitions: Sequence[int]) -> None:
        raise NotImplementedError("collx.compat.mpi4py has no MPI.Prequest.Pready_list")

    def Parrived(self, partition: int) -> bool:
        raise NotImplementedError("collx.compat.mpi4py has no MPI.Prequest.Parrived")


class Grequest(Request):
    """A request for what the program does itself."""

    @classmethod
    def _may_name(cls, it: Any) -> bool:
        return it is None or isinstance(it, Generalized)

    @classmethod
    def Start(
        cls,
        query_fn: Callable[..., None] | None = None,
        free_fn: Callable[..., None] | None = None,
        cancel_fn: Callable[..., None] | None = None,
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
    ) -> Self:
        """query_fn(status, ...) fills in the status when it is done, then free_fn(...) is called; cancel_fn(done, ...)
        when it is to be called off. `args` and `kwargs` are what they get besides."""
        return cls._of(Generalized(query_fn, free_fn, cancel_fn, args or (), kwargs or {}))

    def Complete(self) -> None:
        self.complete()

    def complete(self, obj: Any = None) -> None:
        """It is done, and `obj` is what `wait` returns."""
        operation = self._kept()
        if not isinstance(operation, Generalized):
            raise errors.Exception(ERR_REQUEST, "it was not made by Grequest.Start")
        operation.finish(obj)


REQUEST_NULL = Request._of(None, "REQUEST_NULL")


def _pending(request: Request) -> Operation | None:
    """What there is to wait for."""
    operation: Operation | None = request._it
    return operation if operation is not None and operation.active else None


def _active(requests: Sequence[Request]) -> list[tuple[int, Operation]]:
    return [(index, pending) for index, r in enumerate(requests) if (pending := _pending(r)) is not None]


def _done(pending: list[tuple[int, Operation]]) -> list[tuple[int, Operation]]:
    """Those that are done. One that is not has a moment in which it may go on, for all of them, and again as long as
    that brings more."""
    while True:
        done = [(index, operation) for index, operation in pending if operation.done()]
        waits = next((operation for _, operation in pending if not operation.done()), None)
        if waits is None:
            return pending
        waits.test()
        if sum(operation.done() for _, operation in pending) == len(done):
            return done


def _completed(request: Request, operation: Operation, status: Status | None) -> Operation:
    """Take note of how `operation` ended, which is done: the request stands for it no more."""
    if not operation.persistent:
        request._it = None
    operation.complete(_or_new(status))
    return operation


def _wait(request: Request, status: Status | None) -> Operation | None:
    operation = _pending(request)
    if operation is None:
        _or_new(status)._tell()
        return None
    operation.wait()
    return _completed(request, operation, status)


def _test(request: Request, status: Status | None) -> tuple[bool, Operation | None]:
    operation = _pending(request)
    if operation is None:
        _or_new(status)._tell()
        return True, None
    return (True, _completed(request, operation, status)) if operation.test() else (False, None)


def _until_any(operations: Sequence[Operation]) -> None:
    """Return when one is done. Looks at them all: at first often, then with sleeps, so that ranks which have to share
    the processor get on."""
    looks, nap = 0, _NAP
    while not any(operation.done() for operation in operations):
        looks += 1
        if looks > _SPINS + _YIELDS:
            time.sleep(nap)
            nap = min(nap * 1.2, _SLEEP)
        elif looks > _SPINS:
            os.sched_yield()


def _wait_any(requests: Sequence[Request], status: Status | None) -> tuple[int, Operation | None]:
    pending = _active(requests)
    if len(pending) == 1:
        pending[0][1].wait()
    elif pending:
        _until_any([operation for _, operation in pending])
    index, _, operation = _test_any(requests, status)
    return index, operation


def _test_any(requests: Sequence[Request], status: Status | None) -> tuple[int, bool, Operation | None]:
    pending = _active(requests)
    for index, operation in _done(pending):
        return index, True, _completed(requests[index], operation, status)
    if not pending:
        _or_new(status)._tell()
    return UNDEFINED, not pending, None


def _wait_all(requests: Sequence[Request], statuses: Statuses) -> list[Operation | None]:
    """The operations, None for requests that stood for none."""
    pending = dict(_active(requests))
    for operation in pending.values():
        operation.wait()
    told = _statuses(statuses, len(requests))
    for status in told:
        status._tell()
    _complete_all(requests, pending, {index: told[index] for index in pending})
    return [pending.get(index) for index in range(len(requests))]


def _some(
    requests: Sequence[Request], statuses: Statuses, until: Callable[[Sequence[Operation]], None] | None
) -> tuple[list[int] | None, list[Operation]]:
    pending = _active(requests)
    if not pending:
        return None, []
    if until is not None:
        until([operation for _, operation in pending])
    done = dict(_done(pending))
    told = _statuses(statuses, len(done))
    if isinstance(statuses, list):
        del statuses[len(done) :]
    _complete_all(requests, done, dict(zip(done, told, strict=True)))
    return list(done), list(done.values())


def _complete_all(requests: Sequence[Request], done: dict[int, Operation], statuses: dict[int, Status]) -> None:
    """Complete all of them, though some have failed. By the places of their requests."""
    first: errors.Exception | None = None
    for index, operation in done.items():
        try:
            _completed(requests[index], operation, statuses[index])
        except errors.Exception as error:
            statuses[index].Set_error(error.Get_error_code())
            first = first or error
    if first is not None:
        raise errors.Exception(ERR_IN_STATUS) from first


def _statuses(given: Statuses, count: int) -> list[Status]:
    """`count` statuses: as many of those given as there are, a list being made as long, and new ones."""
    missing = [Status() for _ in range(count - len(given or ()))]
    if isinstance(given, list):
        given.extend(missing)
    return [*(given or ())[:count], *(() if isinstance(given, list) else missing)]


def _or_new(status: Status | None) -> Status:
    return Status() if status is None else status


def _result(operation: Operation | None) -> Any:
    return None if operation is None else operation.result()
