"""Asynchronous calls on GPUs: one after the other in a thread, on a stream of their own.

The thread is there because ranks meet on the host before they touch each other's memory, and a caller that starts a
call does not wait for that. The stream, because what the caller queues meanwhile is to go on beside the call.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable

from collx.errors import TimeoutError
from collx.transports.cuda.driver import CudaError, Driver
from collx.transports.waiting import Pause


class Later:
    """A call under way: on the host until it is queued, and then on the GPU until `ended` is reached."""

    def __init__(self, driver: Driver, ordinal: int, what: str, stream: Callable[[], int]) -> None:
        """`stream()` is what the caller would queue on where it waits."""
        self.driver, self._ordinal, self._what, self._stream = driver, ordinal, what, stream
        self._queued = threading.Event()
        self._error: BaseException | None = None
        with driver.on(ordinal):
            self.begun, self.ended = driver.event(), driver.event()

    def run(self, perform: Callable[[], None]) -> None:
        """What the thread does."""
        try:
            perform()
        except BaseException as error:
            self._error = error
        self._queued.set()

    def done(self) -> bool:
        if not self._queued.is_set():
            return False
        if self._error is not None:
            return True
        with self.driver.on(self._ordinal):
            return self.driver.done(self.ended)

    def queued(self, timeout: float) -> None:
        """Return when the call is queued, or has failed."""
        until, pause = time.monotonic() + timeout, Pause()
        while not self._queued.is_set():  # not its own wait, which Ctrl-C would not end
            if time.monotonic() >= until:
                raise TimeoutError(f"{self._what} has not begun on all ranks within {timeout:g} s; it goes on")
            pause()

    def wait(self, timeout: float) -> None:
        """Return when the call is queued: what the caller queues from now on comes after it."""
        self.queued(timeout)
        if self._error is not None:
            raise self._error
        with self.driver.on(self._ordinal):
            self.driver.wait_event(self._stream(), self.ended)

    def __del__(self) -> None:
        with contextlib.suppress(CudaError), self.driver.on(self._ordinal):
            for event in (self.begun, self.ended):
                self.driver.destroy_event(event)


class Background:
    """A communicator's asynchronous calls."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.newest: Later | None = None

    def submit(self, later: Later, perform: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, args=(later.driver,), name="collx cuda", daemon=True)
            self._thread.start()
        self.newest = later
        self._jobs.put(lambda: later.run(perform))

    def under_way(self) -> bool:
        """Whether the newest one has not ended."""
        if self.newest is not None and self.newest.done():
            self.newest = None
        return self.newest is not None

    def close(self) -> None:
        """Take no more; returns when what is under way has failed or is queued. Idempotent."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None

    def _work(self, driver: Driver) -> None:
        driver.beside_captures()
        while (job := self._jobs.get()) is not None:
            job()
            del job  # and the memory that it keeps
