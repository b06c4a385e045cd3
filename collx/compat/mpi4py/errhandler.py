"""Error handlers: what becomes of a communicator's errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from collx.compat.mpi4py import errors
from collx.compat.mpi4py.attributes import called
from collx.compat.mpi4py.constants import ERR_ERRHANDLER, SUCCESS
from collx.compat.mpi4py.handle import Handle, Kept, Mixin

LIMIT = 32  # error handlers of a program for one kind of objects, as mpi4py has it


class Reaction(Kept):
    """What an error handler does: raise, end the job, or call `function` and then raise."""

    def __init__(self, owner: type | None = None, function: Callable[[Any, int], None] | None = None) -> None:
        self.owner, self.function = owner, function


class Errhandler(Handle):
    null = "ERRHANDLER_NULL"
    invalid = ERR_ERRHANDLER

    def Free(self) -> None:
        _created.discard(self._kept())
        self._it = None


ERRHANDLER_NULL = Errhandler._of(None, "ERRHANDLER_NULL")
ERRORS_RETURN = Errhandler._of(Reaction(), "ERRORS_RETURN")
ERRORS_ABORT = Errhandler._of(Reaction(), "ERRORS_ABORT")
ERRORS_ARE_FATAL = Errhandler._of(Reaction(), "ERRORS_ARE_FATAL")

_created: set[Reaction] = set()


def ordinary() -> Errhandler:
    """That of communicators as they are made, which `mpi4py.rc.errors` says."""
    from mpi4py import rc

    known = {"exception": ERRORS_RETURN, "default": ERRORS_ARE_FATAL, "fatal": ERRORS_ARE_FATAL, "abort": ERRORS_ABORT}
    if rc.errors not in known:
        raise ValueError(f"mpi4py.rc.errors is {rc.errors!r}, but is to be one of: {', '.join(known)}")
    return known[rc.errors]


class HandlesErrors(Mixin):
    """Get_errhandler and so on, for handles of things with an `errhandler`, and an `Abort`."""

    __slots__ = ()

    @classmethod
    def Create_errhandler(cls, errhandler_fn: Callable[[Any, int], None]) -> Errhandler:
        """One that calls errhandler_fn(self, error code) before the error is raised."""
        if sum(reaction.owner is cls.family for reaction in _created) >= LIMIT:
            raise RuntimeError(f"there may be {LIMIT} error handlers of a program's own: free some")
        reaction = Reaction(cls.family, errhandler_fn)
        _created.add(reaction)
        return Errhandler._of(reaction)

    def Get_errhandler(self) -> Errhandler:
        return Errhandler._of(self._kept().errhandler)

    def Set_errhandler(self, errhandler: Errhandler) -> None:
        self._kept().errhandler = errhandler._kept()

    def Call_errhandler(self, errorcode: int) -> None:
        """Do what becomes of an error with this code, but raise nothing."""
        reaction = self._kept().errhandler
        if reaction in (ERRORS_ABORT._it, ERRORS_ARE_FATAL._it):
            self.Abort(errorcode)
        if reaction.function is not None:
            called(reaction.function, self, errorcode)

    def _fail(self, error: errors.Exception, cause: Exception | None = None) -> NoReturn:
        """Raise `error`, after what the error handler does."""
        code = error.Get_error_code()
        if code != SUCCESS:
            self.Call_errhandler(code)
        raise error from cause
