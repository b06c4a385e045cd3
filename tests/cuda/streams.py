"""Streams, events and graphs of GPUs that are not there: each stream a thread, which does one thing after another."""

from __future__ import annotations

import ctypes
import mmap
import os
import queue
import random
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from collx.transports.waiting import Pause

Work = Callable[[], None]
STUCK = 20.0  # seconds, after which a test that waits for a stream ends with an error


class StuckError(AssertionError):
    """A stream waits for what will never come, where a GPU would wait for ever."""


@dataclass(eq=False)
class Graph:
    """What was queued while a stream was captured, in an order that does it right."""

    origin: int
    strict: bool
    ended: bool = False
    spoiled: bool = False
    works: list[Work] = field(default_factory=list)


class Stream:
    """`jitter` delays each work by up to so many seconds, at random: what lacks an order then comes in another one."""

    def __init__(self, failed: Callable[[BaseException], None], jitter: float, seed: int) -> None:
        self.graph: Graph | None = None  # which it is captured into
        self._failed, self._jitter, self._random = failed, jitter, random.Random(seed)
        self._works: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._queued = self._done = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def queue(self, work: Work) -> None:
        if self.graph:
            self.graph.works.append(work)
            return
        self._queued += 1
        self._works.put(work)

    def end(self) -> None:
        self._works.put(None)

    def drained(self) -> None:
        """Return when all that is queued is done."""
        pause, until, queued = Pause(), time.monotonic() + STUCK, self._queued
        while self._done < queued:
            if time.monotonic() > until:
                raise StuckError("a GPU would hang here: a stream waits for what nobody does")
            pause()

    def _run(self) -> None:
        while work := self._works.get():
            if self._jitter and self._random.random() < 0.5:
                time.sleep(self._random.random() * self._jitter)
            try:
                work()
            except BaseException as error:
                self._failed(error)
            del work  # and with it the arrays that it was for
            self._done += 1


class Event:
    """How often it was recorded and how many of these records have been reached, in memory that processes share."""

    SIZE = 64

    def __init__(self, *, timing: bool, interprocess: bool, fd: int = -1, pid: int = 0) -> None:
        """`fd`: the memory of one of the process `pid`, after whose end nobody waits for it any more."""
        self.timing, self.interprocess, self.theirs = timing, interprocess, fd >= 0
        self.graph: Graph | None = None  # where its newest record is part of one
        self.reached_at = 0.0
        self.fd, self._owner = fd, select.poll()
        self._words = (ctypes.c_uint64 * 2)()
        if interprocess:
            if not self.theirs:
                self.fd = os.memfd_create("event")
                os.ftruncate(self.fd, self.SIZE)
            self._words = (ctypes.c_uint64 * 2).from_buffer(mmap.mmap(self.fd, self.SIZE))
        self._pidfd = os.pidfd_open(pid) if pid else -1
        if pid:
            self._owner.register(self._pidfd, select.POLLIN)

    def __del__(self) -> None:
        for fd in (self.fd, self._pidfd):
            if fd >= 0:
                os.close(fd)

    @property
    def recorded(self) -> int:
        return self._words[0]

    @property
    def done(self) -> bool:
        return self._words[1] >= self._words[0]

    def record(self, stream: Stream) -> None:
        if stream.graph:
            self.graph = stream.graph
            return
        self.graph = None
        self._words[0] += 1
        number = self._words[0]
        stream.queue(lambda: self._reach(number))

    def _reach(self, number: int) -> None:
        self.reached_at = time.perf_counter()
        self._words[1] = max(self._words[1], number)

    def wait(self, stream: Stream, ended: Callable[[], bool]) -> None:
        if self.graph:
            stream.graph = self.graph
            return
        number = self.recorded
        if number:
            stream.queue(lambda: wait_until(lambda: self._words[1] >= number or self._orphaned(), ended))

    def _orphaned(self) -> bool:
        return bool(self._owner.poll(0))


def wait_until(condition: Callable[[], bool], ended: Callable[[], bool]) -> None:
    pause = Pause()
    while not condition() and not ended():
        pause()
