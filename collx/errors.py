"""Every exception collx raises. Arguments that are wrong raise ValueError, TypeError or BufferError, before
any communication and with the communicator unharmed; what goes wrong between ranks raises a CollxError."""

from __future__ import annotations

import builtins


class CollxError(RuntimeError):
    """What every error between ranks derives from."""


class BootstrapError(CollxError):
    """The ranks could not find each other: a half-set environment, a missing rank, a refused connection."""


class ClosedError(CollxError):
    """The communicator was closed, was inherited through fork, or is broken by an earlier error."""


class TransportError(CollxError):
    """A transport that was asked for cannot serve, or could not be set up."""


class TimeoutError(CollxError, builtins.TimeoutError):  # "except TimeoutError", of the language too, catches it
    """A deadline passed. The communicator is broken afterwards: the ranks no longer agree on what is next."""


class RankFailedError(CollxError):
    """Ranks died or left while others needed them. `ranks` names them, the same on every rank that raises it."""

    def __init__(self, message: str, ranks: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.ranks = ranks


class AbortedError(CollxError):
    """Another rank gave up on this communicator: it met an error of its own, which the message quotes."""


class RevokedError(CollxError):
    """A rank called `revoke` on this communicator."""


class MismatchError(CollxError):
    """Ranks called different collectives, or the same one with different arguments."""


class TruncatedError(MismatchError):
    """A message is longer than the room that `recv_any` had for it. It is lost, and the communicator goes on."""


class CancelledError(CollxError):
    """A receive was cancelled by `Work.cancel` before anything came. The communicator goes on."""


class ScheduleError(CollxError, ValueError):
    """A schedule does not do what its collective promises; the message says where."""
