"""What a transport is: bytes between two ranks, in order per direction. It knows nothing of collectives."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


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
    (rendezvous): nobody may rely on either. One thread at a time."""

    name: str
    rank: int
    size: int

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
