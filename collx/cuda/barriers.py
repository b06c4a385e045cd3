"""How ranks wait for each other's work on GPUs: one barrier, in four modes.

In every mode what a rank queues behind `wait` begins after all that the arriving ranks had queued before they arrived.
What a mode may rely on differs with what is true of the ranks' GPUs, so it is chosen when they join (docs/cuda.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from collx.cuda.control import Deadline
from collx.errors import TimeoutError
from collx.transports.cuda.driver import Driver
from collx.transports.waiting import Pause

MODES = ("host", "event", "memop", "spin")
EVENTS = 4  # of one rank, in turns: a peer has waited for one long before it is recorded again
STRIDE = 8  # bytes of a word
CAPTURED = 32  # barriers that a call in a graph may have
FOREVER = (1 << 63) - 1


class Signals(Protocol):
    """How a stream writes words and waits for them."""

    mode: str

    def write(self, stream: int, words: Sequence[int], value: int) -> None:
        """Write `value` to the words when all that is queued on the stream so far is done, and seen by whoever sees
        the value."""
        ...

    def wait(self, stream: int, words: Sequence[int], value: int) -> None:
        """Have the stream wait until each of the words is `value` or more."""
        ...


class Kernels(Protocol):
    """What `Spins` is made of."""

    def signal(self, words: Sequence[int], value: int, stream: int) -> None: ...
    def wait(self, words: Sequence[int], value: int, stream: int) -> None: ...


class Barrier(Protocol):
    """One rank's end. `number` counts the communicator's barriers, the same on all ranks."""

    mode: str
    meets: bool  # whether ranks must meet on the host between arriving and waiting
    captures: bool  # whether it can become part of a CUDA graph

    def arrive(self, number: int, stream: int, waiting: Sequence[int], deadline: Deadline) -> None:
        """Say to the `waiting` ranks, all but this one, that what is queued on `stream` is done, as soon as it is."""
        ...

    def wait(self, number: int, stream: int, arriving: Sequence[int]) -> None:
        """Have `stream` wait for these ranks, all but this one."""
        ...

    def release(self) -> None:
        """End all waits of this rank's streams, now and from now on: a peer will not come."""
        ...


def synchronize(driver: Driver, stream: int, event: int, deadline: Deadline, here: str) -> None:
    """Return when all that is queued on the stream is done. Raises TimeoutError at the deadline; Ctrl-C ends it."""
    driver.record(event, stream)
    pause = Pause()
    while not driver.done(event):
        if deadline.over:
            raise TimeoutError(
                f"{here} waited {deadline.seconds:g} s for what was queued on its stream before; does that ever end,"
                " or is timeout= too short?"
            )
        pause()


class HostBarrier:
    """Everything is done before anybody is told, on the host. Works wherever ranks share memory."""

    mode, meets, captures = "host", True, False

    def __init__(self, driver: Driver, here: str) -> None:
        self._driver, self._here = driver, here
        self._event = driver.event()

    def arrive(self, number: int, stream: int, waiting: Sequence[int], deadline: Deadline) -> None:
        synchronize(self._driver, stream, self._event, deadline, self._here)

    def wait(self, number: int, stream: int, arriving: Sequence[int]) -> None:
        """They have all met."""

    def release(self) -> None:
        """No stream waits for a peer."""


class EventBarrier:
    """Interprocess events: `waits` for one that has not been recorded yet would be no wait at all, so ranks meet on the
    host in between, but no rank's host waits for a GPU."""

    mode, meets, captures = "event", True, False

    def __init__(self, driver: Driver, own: Sequence[int], peers: dict[int, Sequence[int]]) -> None:
        self._driver, self._own, self._peers = driver, own, peers

    def arrive(self, number: int, stream: int, waiting: Sequence[int], deadline: Deadline) -> None:
        self._driver.record(self._own[number % EVENTS], stream)

    def wait(self, number: int, stream: int, arriving: Sequence[int]) -> None:
        for peer in arriving:
            self._driver.wait_event(stream, self._peers[peer][number % EVENTS])

    def release(self) -> None:
        """What was recorded is reached or its process is dead: then the driver ends the wait."""


class Slots(NamedTuple):
    """Where the words of a `SlotBarrier` lie, as they are mapped here. A word has one writer and one reader: rank r
    writes the word `own` + r * STRIDE of every other rank's inbox."""

    inboxes: tuple[int, ...]  # by rank

    def of(self, reader: int, writer: int, barrier: int) -> int:
        return self.inboxes[reader] + ((barrier * len(self.inboxes)) + writer) * STRIDE


class SlotBarrier:
    """Words in the ranks' slabs, which streams write, and wait for, by themselves (`Signals`).

    A rank waits for words in its own slab, which peers write: to give a wait up it writes them itself, and no other
    rank's wait ends by that. Outside CUDA graphs a word holds the number of the newest barrier, so it only grows. In a
    graph, which writes the same number each time it is replayed, it is 1 or 0: who has waited for it sets it back, and
    the next one comes after an answer to that (`captured`).
    """

    meets, captures = False, True

    def __init__(self, signals: Signals, rank: int, slots: Slots, rescue: int) -> None:
        """`rescue` is a stream that never waits."""
        self.mode = signals.mode
        self._signals, self._rank, self._slots, self._rescue = signals, rank, slots, rescue

    def arrive(self, number: int, stream: int, waiting: Sequence[int], deadline: Deadline) -> None:
        self._signals.write(stream, [self._slots.of(peer, self._rank, 0) for peer in waiting], number)

    def wait(self, number: int, stream: int, arriving: Sequence[int]) -> None:
        self._signals.wait(stream, [self._slots.of(self._rank, peer, 0) for peer in arriving], number)

    def release(self) -> None:
        words = [
            self._slots.of(self._rank, peer, barrier)
            for barrier in range(1 + CAPTURED)
            for peer in range(len(self._slots.inboxes))
        ]
        self._signals.write(self._rescue, words, FOREVER)

    def captured(self) -> CapturedBarrier:
        """For one call in a graph."""
        return CapturedBarrier(self._signals, self._rank, self._slots)


class CapturedBarrier:
    """The barriers of one call that is captured. Each has words of its own among the call's, and all calls have the
    same: between two uses of a word its reader has answered its writer, as every call begins with all ranks before the
    workers and ends with the workers before all ranks."""

    def __init__(self, signals: Signals, rank: int, slots: Slots) -> None:
        self.mode = signals.mode
        self._signals, self._rank, self._slots = signals, rank, slots
        self._first: int | None = None

    def arrive(self, number: int, stream: int, waiting: Sequence[int], deadline: Deadline) -> None:
        self._signals.write(stream, [self._slots.of(peer, self._rank, self._place(number)) for peer in waiting], 1)

    def wait(self, number: int, stream: int, arriving: Sequence[int]) -> None:
        words = [self._slots.of(self._rank, peer, self._place(number)) for peer in arriving]
        self._signals.wait(stream, words, 1)
        self._signals.write(stream, words, 0)

    def _place(self, number: int) -> int:
        if self._first is None:
            self._first = number
        return 1 + number - self._first


class Memops:
    """Signals by the memory operations of streams: no kernel, so they serve where kernels of several processes never
    run at once."""

    mode = "memop"

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def write(self, stream: int, words: Sequence[int], value: int) -> None:
        for word in words:
            self._driver.write_value(stream, word, value)

    def wait(self, stream: int, words: Sequence[int], value: int) -> None:
        for word in words:
            self._driver.wait_value(stream, word, value)


class Spins:
    """Signals by kernels that look until they see: the quickest, where kernels of all ranks run at once."""

    mode = "spin"

    def __init__(self, kernels: Kernels) -> None:
        self._kernels = kernels

    def write(self, stream: int, words: Sequence[int], value: int) -> None:
        self._kernels.signal(words, value, stream)

    def wait(self, stream: int, words: Sequence[int], value: int) -> None:
        self._kernels.wait(words, value, stream)
