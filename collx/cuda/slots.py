"""Barriers by words in the ranks' slabs, which GPUs write and wait for without their hosts."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Protocol

from collx.cuda.barriers import Barrier
from collx.cuda.control import Deadline
from collx.cuda.kernels import Kernels
from collx.errors import TransportError
from collx.transports.cuda.driver import Driver

WORD, LINE = 8, 128  # bytes of a word, and of what one writes of which another one writes nothing
CAPTURED = 32  # barriers that a call in a graph may have
FOREVER = (1 << 63) - 1
SLACK = 10.0  # seconds


class Words:
    """Where the words lie, by rank; each has 64 bits, one writer and one reader.

    A rank's `status` is not 0 once it has given up, and then its folds write nothing any more. Behind it lies its
    inbox, in which every peer has a word for barriers outside graphs, and one for each of CAPTURED within.
    """

    def __init__(self, slabs: Sequence[int]) -> None:
        """`slabs`: by rank, where they are mapped here."""
        self._slabs = slabs

    @staticmethod
    def room(size: int) -> int:
        return LINE + (1 + CAPTURED) * size * WORD

    def status(self, rank: int) -> int:
        return self._slabs[rank]

    def inbox(self, reader: int, writer: int, place: int = 0) -> int:
        return self._slabs[reader] + LINE + (place * len(self._slabs) + writer) * WORD


class Signals(Protocol):
    """How a stream writes words and waits for them."""

    mode: str

    def write(self, stream: int, words: Sequence[int], value: int) -> None:
        """Write `value` to the words behind all that is queued on the stream, which whoever sees the value sees too."""
        ...

    def wait(self, stream: int, words: Sequence[int], value: int, limit: float) -> None:
        """Have the stream wait until each of the words is `value` or more, for `limit` seconds or longer."""
        ...

    def give_up(self) -> None:
        """End waits that would not end by what is written to their words."""
        ...


class Memops:
    """By memory operations of the stream. No kernel waits, so this serves where kernels of several processes never run
    at once."""

    mode = "memop"

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def write(self, stream: int, words: Sequence[int], value: int) -> None:
        for word in words:
            self._driver.write_value(stream, word, value)

    def wait(self, stream: int, words: Sequence[int], value: int, limit: float) -> None:
        for word in words:
            self._driver.wait_value(stream, word, value)

    def give_up(self) -> None:
        """All end by what is written."""


class Spins:
    """By kernels that look until they see: the quickest, where kernels of all ranks run at once."""

    mode = "spin"

    def __init__(self, kernels: Kernels, status: int, abort: int) -> None:
        """A kernel gives up by the host's word at `abort`, or by itself, and says so at `status`."""
        self._kernels, self._status, self._abort = kernels, status, abort
        kernels.load("signal", "wait")

    def write(self, stream: int, words: Sequence[int], value: int) -> None:
        self._kernels.signal(words, value, stream, status=self._status)

    def wait(self, stream: int, words: Sequence[int], value: int, limit: float) -> None:
        limit = 2 * limit + SLACK  # the host gives up first, and tells of it
        self._kernels.wait(words, value, stream, abort=self._abort, limit=limit, status=self._status)

    def give_up(self) -> None:
        ctypes.c_uint64.from_address(self._abort).value = 1


class SlotBarrier:
    """Words in the ranks' slabs, by `Signals`.

    A rank waits for words in its own slab, which peers write: to give a wait up it writes them itself, and no other
    rank's wait ends by that. Outside CUDA graphs a word holds the number of the newest barrier, so it only grows. In a
    graph, which writes the same number each time it is replayed, it is 1 or 0: who has waited for it sets it back
    (`captured`).
    """

    meets, waits, releases = False, True, True

    def __init__(self, driver: Driver, signals: Signals, rank: int, size: int, words: Words, rescue: int) -> None:
        """`rescue` is a stream that never waits."""
        self.mode = signals.mode
        self._driver, self._signals, self._rank, self._size = driver, signals, rank, size
        self._words, self._rescue = words, rescue

    def arrive(self, number: int, stream: int, waiting: Sequence[int], deadline: Deadline) -> None:
        rank = self._rank
        self._signals.write(stream, [self._words.inbox(peer, rank) for peer in waiting if peer != rank], number)

    def wait(self, number: int, stream: int, arriving: Sequence[int], deadline: Deadline) -> None:
        rank = self._rank
        words = [self._words.inbox(rank, peer) for peer in arriving if peer != rank]
        self._signals.wait(stream, words, number, deadline.seconds)

    def release(self) -> None:
        self._signals.give_up()
        inbox = range(self._words.inbox(self._rank, 0), self._words.inbox(self._rank, 0, 1 + CAPTURED), WORD)
        for word, value in ((self._words.status(self._rank), 1), *((word, FOREVER) for word in inbox)):
            self._driver.write_value(self._rescue, word, value)

    def captured(self, here: str) -> Barrier:
        return CapturedBarrier(self._signals, self._rank, self._words, here)


class CapturedBarrier:
    """The barriers of one call in a graph. Each of them has words of its own, the same in all calls: between two uses
    of a word its reader has answered its writer, as every call begins with a barrier of all ranks before those that
    work and ends with one of those before all."""

    meets, waits, releases = False, True, True

    def __init__(self, signals: Signals, rank: int, words: Words, here: str) -> None:
        self.mode = signals.mode
        self._signals, self._rank, self._words, self._here = signals, rank, words, here
        self._first: int | None = None

    def arrive(self, number: int, stream: int, waiting: Sequence[int], deadline: Deadline) -> None:
        rank, place = self._rank, self._place(number)
        self._signals.write(stream, [self._words.inbox(peer, rank, place) for peer in waiting if peer != rank], 1)

    def wait(self, number: int, stream: int, arriving: Sequence[int], deadline: Deadline) -> None:
        rank, place = self._rank, self._place(number)
        words = [self._words.inbox(rank, peer, place) for peer in arriving if peer != rank]
        self._signals.wait(stream, words, 1, deadline.seconds)
        self._signals.write(stream, words, 0)

    def release(self) -> None:
        """That of the barrier outside graphs ends these waits as well."""

    def captured(self, here: str) -> Barrier:
        return CapturedBarrier(self._signals, self._rank, self._words, here)

    def _place(self, number: int) -> int:
        if self._first is None:
            self._first = number
        if number - self._first >= CAPTURED:
            raise TransportError(
                f"{self._here}: its algorithm has more than the {CAPTURED} barriers that a call in a graph may have;"
                " name one with fewer rounds (algorithm=)"
            )
        return 1 + number - self._first
