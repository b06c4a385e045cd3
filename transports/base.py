"""What a transport is: bytes between two ranks, in order per direction. It knows nothing of collectives."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from enum import Enum
from typing import Any, Protocol, runtime_checkable


class Threads(Enum):
    """Which threads may drive a transport, one at a time."""

    ANY = "any, the engine's own among them"
    USERS = "the user's"
    MAIN = "the main one"


@runtime_checkable
class Request(Protocol):
    """A transfer under way. The view it was started with must stay alive and untouched until it is done."""

    def done(self) -> bool:
        """Whether the transfer has ended; never blocks. Raises what `wait` would raise."""
        ...

    def wait(self, timeout: float) -> None:
        """Return when the transfer has ended.

        Raises collx.TimeoutError after `timeout` seconds, RankFailedError where the peer died,
        MismatchError where the message has another length than the receive.
        """
        ...


@runtime_checkable
class Transport(Protocol):
    """One rank's end. Messages between two ranks arrive in the order they were sent; no order is promised
    between different peers. A send may complete before it is received (buffered) or only then
    (rendezvous): nobody may rely on either. One thread at a time, of those that `threads` says."""

    name: str
    rank: int
    size: int
    threads: Threads

    def reaches(self, peer: int) -> bool:
        """Whether this transport can move bytes to and from `peer`."""
        ...

    def send(self, peer: int, view: memoryview) -> Request:
        """Start sending the bytes of `view` (C-contiguous, any length, zero too)."""
        ...

    def recv(self, peer: int, view: memoryview) -> Request:
        """Start receiving the next message from `peer` into `view`; its length must be exactly the view's."""
        ...

    def close(self) -> None:
        """Give up every resource. Idempotent; transfers under way fail with ClosedError."""
        ...


@runtime_checkable
class Board(Protocol):
    """What a transport adds whose ranks can decide something together, whoever of them dies meanwhile."""

    def decide(self, question: Hashable, answer: Any) -> Any:
        """The answer that was given first to this question, by whichever rank; never blocks."""
        ...

    def decided(self, question: Hashable) -> Any:
        """That answer, or None where there is none yet."""
        ...

    def gone(self) -> tuple[Collection[int], Collection[int]]:
        """The ranks that have died, and those that have left."""
        ...


class Survivors(Protocol):
    """How the ranks of a communicator agree on who goes on without those that are gone: in attempts, counted from 0,
    that all of them go through. An attempt fails where a member is gone before it has connected."""

    def members(self, attempt: int, timeout: float) -> tuple[int, ...]:
        """Who is to go on, the same on every rank. Raises TimeoutError after `timeout` seconds, where that needs the
        other survivors, and TransportError where they have lost the connection to this rank."""
        ...

    def failed(self, attempt: int) -> bool:
        """Whether the attempt has. Raises AbortedError where a rank gave up; never blocks."""
        ...

    def unite(self, attempt: int, timeout: float) -> bool:
        """Say that this rank has connected, and return when all members have; False where the attempt failed.
        Raises AbortedError where a rank gave up, TimeoutError after `timeout` seconds."""
        ...

    def give_up(self, attempt: int, reason: str) -> bool | None:
        """End it for all ranks and return None, as where another rank has done so; where it was decided before, whether
        all members have connected."""
        ...
