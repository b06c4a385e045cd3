"""Operations: what requests stand for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from threading import Event
from typing import Any, NoReturn

from collx.compat.mpi4py import errors
from collx.compat.mpi4py.attributes import called
from collx.compat.mpi4py.constants import ERR_REQUEST, PROC_NULL
from collx.compat.mpi4py.failures import Failure
from collx.compat.mpi4py.handle import Kept
from collx.compat.mpi4py.status import Status
from collx.errors import CollxError, TimeoutError
from collx.work import Work

MOMENT = 20e-6  # seconds


class Operation(Kept):
    """Something that is done at once and has an empty status; the classes below say what is otherwise."""

    persistent = False  # whether its request remains when it has ended, to be started again

    @property
    def active(self) -> bool:
        """Whether there is anything to wait for."""
        return True

    def done(self) -> bool:
        return True

    def test(self) -> bool:
        """Whether it is done, after a moment in which it may go on: MPI has whoever asks move what he asks for."""
        return self.done()

    def wait(self) -> None:
        """Return when it is done. What it failed with, `complete` raises."""

    def complete(self, status: Status) -> None:
        """Say in `status` how it ended, when it is done, or raise what it failed with. May be called again."""
        status._tell()

    def peek(self, status: Status) -> None:
        """As complete, which is still to come."""
        self.complete(status)

    def result(self) -> Any:
        """What the methods with names in lower case return, when it is completed."""
        return None

    def cancel(self) -> None:
        """Call it off, where that is still possible."""

    def free(self) -> None:
        """Nobody will wait for it."""

    def start(self) -> None:
        raise errors.Exception(ERR_REQUEST, "only persistent requests can be started")


class Nowhere(Operation):
    """A message to or from PROC_NULL."""

    def complete(self, status: Status) -> None:
        status._tell(source=PROC_NULL)


def raised(error: errors.Exception, cause: Exception) -> NoReturn:
    raise error from cause


class Transfer(Operation):
    """A collx `Work`, and what follows it.

    ended: called once, with the Work's result and a Status to fill in, when the program learns that it is done.
    places: whether `ended` brings what came to its place.
    load: makes the object that `result` returns of what `ended` returned; None where there is none.
    fail: raises what it failed with, and its cause.
    """

    def __init__(
        self,
        work: Work,
        ended: Callable[[Any, Status], Any] | None = None,
        load: Callable[[Any], Any] | None = None,
        fail: Callable[[errors.Exception, Exception], NoReturn] = raised,
        places: bool = False,
    ) -> None:
        self._work, self._ended, self._load, self._fail, self._places = work, ended, load, fail, places
        self._status: Status | None = None  # once completed
        self._got: Any = None
        self._cancelled = False

    def done(self) -> bool:
        return self._work.done()

    def test(self) -> bool:
        if not self._work.done():
            with contextlib.suppress(TimeoutError):
                self._help(MOMENT)
        return self._work.done()

    def wait(self) -> None:
        self._help(None)

    def _help(self, timeout: float | None) -> None:
        try:
            self._work.wait(timeout)
        except Exception:
            if not self._work.done():  # not what it failed with: its time is up, or a signal's handler raised it
                raise

    def complete(self, status: Status) -> None:
        if self._status is None:
            known = Status()
            known.Set_cancelled(self._cancelled)
            if not self._cancelled:
                try:
                    outcome = self._work.wait()
                except CollxError as error:
                    self._fail(Failure(error), error)
                if self._ended is not None:
                    self._got = self._ended(outcome, known)
            self._status, self._ended = known, None
        status._copy(self._status)

    def result(self) -> Any:
        return None if self._load is None or self._cancelled else self._load(self._got)

    def cancel(self) -> None:
        self._cancelled = self._cancelled or self._work.cancel()

    def free(self) -> None:
        if self._places and self._work.done():
            self.complete(Status())
        elif self._places:
            told = "while data is to come for a datatype with gaps: wait for it"
            raise NotImplementedError(f"collx.compat.mpi4py has no MPI.Request.Free {told}")


class Both(Operation):
    """A receive, whose outcome counts, and a send."""

    def __init__(self, receiving: Operation, sending: Operation) -> None:
        self._receiving, self._sending = receiving, sending

    def done(self) -> bool:
        return self._sending.done() and self._receiving.done()

    def test(self) -> bool:
        return self._sending.test() and self._receiving.test()

    def wait(self) -> None:
        self._receiving.wait()
        self._sending.wait()

    def complete(self, status: Status) -> None:
        self._sending.complete(status)
        self._receiving.complete(status)

    def free(self) -> None:
        self._receiving.free()
        self._sending.free()


class Persistent(Operation):
    """An operation that is begun, by `begin`, as often as the program starts it."""

    persistent = True

    def __init__(self, begin: Callable[[], Operation]) -> None:
        self._begin = begin
        self._begun: Operation | None = None

    @property
    def active(self) -> bool:
        return self._begun is not None

    def start(self) -> None:
        if self._begun is not None:
            raise errors.Exception(ERR_REQUEST, "it was started, and not waited for yet")
        self._begun = self._begin()

    def done(self) -> bool:
        return self._begun is None or self._begun.done()

    def test(self) -> bool:
        return self._begun is None or self._begun.test()

    def wait(self) -> None:
        if self._begun is not None:
            self._begun.wait()

    def complete(self, status: Status) -> None:
        begun, self._begun = self._begun, None
        if begun is None:
            status._tell()
        else:
            begun.complete(status)

    def peek(self, status: Status) -> None:
        assert self._begun is not None
        self._begun.peek(status)

    def cancel(self) -> None:
        if self._begun is not None:
            self._begun.cancel()

    def free(self) -> None:
        if self._begun is not None:
            self._begun.free()


class Generalized(Operation):
    """What the program itself does, and says when it is done."""

    def __init__(
        self,
        query: Callable[..., None] | None,
        free: Callable[..., None] | None,
        cancel: Callable[..., None] | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self._query, self._free, self._cancel = query, free, cancel
        self._args, self._kwargs = args, kwargs
        self._ended = Event()
        self._object: Any = None

    def finish(self, made: Any) -> None:
        self._object = made
        self._ended.set()

    def done(self) -> bool:
        return self._ended.is_set()

    def wait(self) -> None:
        self._ended.wait()

    def complete(self, status: Status) -> None:
        self.peek(status)
        self._call(self._free)

    def peek(self, status: Status) -> None:
        status._tell()
        self._call(self._query, status)

    def result(self) -> Any:
        return self._object

    def cancel(self) -> None:
        self._call(self._cancel, self._ended.is_set())

    def _call(self, function: Callable[..., None] | None, *first: Any) -> None:
        if function is not None:
            called(function, *first, *self._args, **self._kwargs)
