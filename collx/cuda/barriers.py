"""How ranks wait for each other's work on GPUs: one barrier, in four modes.

In every mode what a rank queues behind `wait` begins after all that the arriving ranks had queued before they arrived.
What a mode may rely on differs with what is true of the ranks' GPUs, so it is chosen when they join (docs/cuda.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from collx.cuda.control import Deadline
from collx.errors import TimeoutError, TransportError
from collx.transports.cuda.driver import Driver
from collx.transports.waiting import Pause

MODES = ("host", "event", "memop", "spin")
LONGEST = 50e-6  # seconds between looks at a stream: what it does takes little longer than that
EVENTS = 4  # of one rank, in turns: a peer has waited for one long before it is recorded again


class Barrier(Protocol):
    """One rank's end. `number` counts the communicator's barriers, the same on all ranks."""

    mode: str
    meets: bool  # whether ranks must meet on the host between arriving and waiting
    waits: bool  # whether streams wait for peers by themselves, when the call has returned
    releases: bool  # whether such waits can be ended from here

    def arrive(self, number: int, stream: int, waiting: Sequence[int], deadline: Deadline) -> None:
        """Say to the `waiting` ranks that what is queued on `stream` is done, as soon as it is. Who waits itself calls
        `wait` before it queues anything more."""
        ...

    def wait(self, number: int, stream: int, arriving: Sequence[int], deadline: Deadline) -> None:
        """Have `stream` wait for these ranks."""
        ...

    def release(self) -> None:
        """Where it `releases`, end all waits of this rank's streams, now and from now on, and have its folds write
        nothing: a peer will not come."""
        ...

    def captured(self, here: str) -> Barrier:
        """The barriers of one call in a CUDA graph. Raises TransportError in modes that cannot be captured."""
        ...


def uncapturable(mode: str, here: str) -> TransportError:
    return TransportError(
        f"{here}: ranks that wait for each other by {mode} cannot do so in a CUDA graph; set COLLX_CUDA_SYNC=memop, or"
        " spin where every rank has a GPU of its own"
    )


def synchronize(driver: Driver, stream: int, event: int, deadline: Deadline, here: str) -> None:
    """Return when all that is queued on the stream is done. Raises TimeoutError at the deadline; Ctrl-C ends it."""
    driver.record(event, stream)
    pause = Pause(LONGEST)
    while not driver.done(event):
        if deadline.over:
            raise TimeoutError(
                f"{here} waited {deadline.seconds:g} s for what was queued on its stream before; does that ever end,"
                " or is timeout= too short?"
            )
        pause()


class HostBarrier:
    """Everything is done before anybody is told, on the host. Works wherever ranks share memory."""

    mode, meets, waits, releases = "host", True, False, True

    def __init__(self, driver: Driver, here: str, event: int) -> None:
        self._driver, self._here, self._event = driver, here, event

    def arrive(self, number: int, stream: int, waiting: Sequence[int], deadline: Deadline) -> None:
        synchronize(self._driver, stream, self._event, deadline, self._here)

    def wait(self, number: int, stream: int, arriving: Sequence[int], deadline: Deadline) -> None:
        """They have all met."""

    def release(self) -> None:
        """No stream waits for a peer."""

    def captured(self, here: str) -> Barrier:
        raise uncapturable(self.mode, here)


class EventBarrier:
    """Interprocess events: `waits` for one that has not been recorded yet would be no wait at all, so ranks meet on the
    host in between, but no rank's host waits for a GPU."""

    mode, meets, waits, releases = "event", True, True, False

    def __init__(self, driver: Driver, rank: int, events: Sequence[Sequence[int]]) -> None:
        """`events`: by rank, EVENTS of each."""
        self._driver, self._rank, self._events = driver, rank, events

    def arrive(self, number: int, stream: int, waiting: Sequence[int], deadline: Deadline) -> None:
        self._driver.record(self._events[self._rank][number % EVENTS], stream)

    def wait(self, number: int, stream: int, arriving: Sequence[int], deadline: Deadline) -> None:
        for peer in arriving:
            if peer != self._rank:
                self._driver.wait_event(stream, self._events[peer][number % EVENTS])

    def release(self) -> None:
        """An event is its owner's, and CUDA does not say what becomes of one whose process has died."""

    def captured(self, here: str) -> Barrier:
        raise uncapturable(self.mode, here)
