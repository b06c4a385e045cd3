"""What runs plans. `Engine` is what the communicator asks of one; `ReferenceEngine` is the one in Python."""

from __future__ import annotations

from typing import Any, Protocol

from collx.plan import Plan
from collx.types import ReduceOp


class Pending(Protocol):
    """A call under way on the engine's progress thread."""

    def done(self) -> bool:
        """Whether it has ended, well or not; never blocks."""
        ...

    def wait(self, timeout: float) -> None:
        """Return when it has ended; raise what it failed with, or TimeoutError after `timeout` seconds."""
        ...


class Engine(Protocol):
    """One rank's engine in one communicator. Addresses are of C-contiguous memory that the caller keeps alive."""

    transports: tuple[str, ...]
    capacity: int  # bytes that one message slice may have at most
    window: int  # slices in flight at most

    def prepare(self, plan: Plan, op: ReduceOp) -> Any:
        """The engine's own form of `plan`, to be cached by the caller."""
        ...

    def run(self, prepared: Any, source: int, target: int, sequence: int, timeout: float) -> None:
        """Run a plan from the input at address `source` to the output at `target`; `sequence` counts the
        communicator's collectives. Raises CollxError subclasses."""
        ...

    def start(self, prepared: Any, source: int, target: int, sequence: int, timeout: float) -> Pending:
        """As run, but in order on the progress thread."""
        ...

    def send(self, address: int, nbytes: int, to: int, tag: int, timeout: float) -> None: ...

    def recv(self, address: int, nbytes: int, source: int, tag: int, timeout: float) -> None: ...

    def start_send(self, address: int, nbytes: int, to: int, tag: int, timeout: float) -> Pending: ...

    def start_recv(self, address: int, nbytes: int, source: int, tag: int, timeout: float) -> Pending: ...

    def fail(self, reason: str) -> None:
        """Tell the other ranks that this one gave up, and why (one line)."""
        ...

    def close(self) -> None:
        """Leave; idempotent. Calls under way fail with ClosedError."""
        ...
