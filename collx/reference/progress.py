"""How calls of the reference engine move on: whoever waits helps all of them, under one lock.

A call is a generator that yields what it waits for. Collectives run one after the other, tagged messages
side by side. A thread of its own does the same for calls that nobody waits for yet, where the transport takes any
thread; elsewhere they move when the user asks for one of them.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from collx.errors import AbortedError, CancelledError, ClosedError, TimeoutError, TransportError, TruncatedError
from collx.transports.base import Threads
from collx.transports.waiting import Pause
from collx.types import Envelope


class Awaited(Protocol):
    def done(self) -> bool: ...


@runtime_checkable
class Recallable(Protocol):
    def recall(self) -> bool:
        """Wait no longer; False where it is too late for that."""
        ...


class Driven:
    """What moves only while somebody asks for it: nobody pauses before he asks again."""

    def done(self) -> bool:
        raise NotImplementedError


TURNS = 4  # in which a message that has come is taken in, part by part
Steps = Generator[Awaited, None, Any]  # those of a receive or a probe return the Envelope of what was found


class Passage(Protocol):
    """When a call began and ended, and what it failed with."""

    begun: float
    ended_at: float
    ended: bool
    error: Exception | None


class Task:
    """A call under way (a Pending)."""

    def __init__(self, progress: Progress, steps: Steps, what: str, timeout: float) -> None:
        self.progress, self.steps, self.what, self.timeout = progress, steps, what, timeout
        self.begun = time.monotonic()
        self.deadline = self.begun + timeout
        self.ended_at = 0.0
        self.awaited: Awaited | None = None
        self.ended = False
        self.error: Exception | None = None
        self.found: Envelope | None = None

    def done(self) -> bool:
        if not self.ended and self.progress.moves_on_asking():
            self.progress.turn()
        return self.ended

    def wait(self, timeout: float) -> Envelope | None:
        self.progress.help(self, timeout)
        return self.found

    def cancel(self) -> bool:
        return self.progress.recall(self)

    def advance(self) -> bool:
        """Go on as far as possible without waiting; returns whether that was any way at all."""
        moved = False
        while not self.ended:
            if self.awaited is not None and not self.awaited.done():
                if time.monotonic() > self.deadline:
                    raise TimeoutError(f"{self.what} waited {self.timeout:g} s for {self.awaited}")
                return moved or isinstance(self.awaited, Driven)
            moved = True
            try:
                self.awaited = next(self.steps)
            except StopIteration as last:
                self.found, self.ended_at, self.ended = last.value, time.monotonic(), True
            except TruncatedError as error:  # which is nobody else's matter
                self.end(error)
        return moved

    def end(self, error: Exception) -> None:
        if not self.ended:
            self.error, self.ended_at, self.ended = error, time.monotonic(), True


class Progress:
    """The calls under way on one engine. `poll_lanes` takes in messages; `judged(error)` is told the first failure,
    and says what all calls fail with after it. `threads` may move them."""

    def __init__(
        self,
        name: str,
        poll_lanes: Callable[[], bool],
        judged: Callable[[Exception], Exception],
        threads: Threads = Threads.ANY,
    ) -> None:
        self.name, self.poll_lanes, self.judged, self.threads = name, poll_lanes, judged, threads
        self.lock = threading.RLock()
        self.ordered: deque[Task] = deque()
        self.free: list[Task] = []
        self.over: Exception | None = None
        self._told = False  # whether a call has raised it, or will
        self._helpers = 0  # threads that wait for a call, and move all of them on meanwhile
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def idle(self) -> bool:
        """Whether a call could begin, and nothing is under way."""
        return not (self.ordered or self.free or self.over)

    def drained(self) -> bool:
        """Whether a call could begin, when all collectives under way have ended."""
        while self.ordered:
            self.help(self.ordered[-1], math.inf)
        return self.over is None

    def usable(self, what: str) -> None:
        """Raise ClosedError where no call can be made any more; the first call, where that was found out while none
        was under way, what it was."""
        if self.over is not None:
            closed = isinstance(self.over, ClosedError)
            if not closed and not self._told:
                self._told = True
                raise self.over
            raise ClosedError(f"{what}: the communicator is {'closed' if closed else f'broken by: {self.over}'}")

    def may_call(self) -> None:
        """Raise TransportError where this is a thread that may move nothing."""
        if self.threads is Threads.MAIN and threading.current_thread() is not threading.main_thread():
            raise TransportError(
                f"{self.name}: thread {threading.current_thread().name} may not call, as the transport allows the main"
                " thread alone; under MPI that is its thread level, which needs to be MPI_THREAD_MULTIPLE for others"
            )

    def moves_on_asking(self) -> bool:
        """Whether calls move only when they are asked for, and this thread may do that."""
        main = threading.current_thread() is threading.main_thread()
        return self.threads is not Threads.ANY and (main or self.threads is Threads.USERS)

    def submit(self, steps: Steps, what: str, timeout: float, *, ordered: bool, background: bool) -> Task:
        with self.lock:
            self.usable(what)
            task = Task(self, steps, what, timeout)
            (self.ordered if ordered else self.free).append(task)
            if background and self.threads is Threads.ANY:
                self._background()
            elif background:
                self.turn()
            return task

    def help(self, task: Task, timeout: float) -> None:
        """Move everything on until `task` has ended, and raise what it failed with."""
        if not task.ended:
            self.may_call()
        limit = time.monotonic() + timeout
        pause = Pause()
        with self._helped():
            while not task.ended:
                if self.turn():
                    pause = Pause()
                elif time.monotonic() > limit:
                    raise TimeoutError(f"{task.what} has not ended after {timeout:g} s")
                elif not task.ended:
                    pause()
        if task.error is not None:
            raise task.error

    @contextmanager
    def _helped(self) -> Iterator[None]:
        """In the block the engine's own thread makes room: two that look by turns wait for each other at every look."""
        with self.lock:
            self._helpers += 1
        try:
            yield
        finally:
            with self.lock:
                self._helpers -= 1
            self._wake.set()

    def turn(self) -> bool:
        """Let every call go on as far as it can now; returns whether any did."""
        with self.lock:
            if self.over is not None:
                return False
            try:
                moved = self.poll_lanes()
                for task in [*list(self.ordered)[:1], *self.free]:
                    moved = task.advance() or moved
            except BaseException as error:
                interrupted = AbortedError(f"{self.name} was interrupted by {error!r}")
                self.stop(error if isinstance(error, Exception) else interrupted)
                if not isinstance(error, Exception):
                    raise
                return True
            if self.ordered and self.ordered[0].ended:
                self.ordered.popleft()
                moved = True
            self.free = [task for task in self.free if not task.ended]
            return moved

    def catch_up(self) -> None:
        """Take in what has come."""
        for _ in range(TURNS):
            if not self.turn():
                return

    def recall(self, task: Task) -> bool:
        """Take back a receive that nothing has come for; False where it is too late, or no receive."""
        self.may_call()
        with self.lock:
            self.catch_up()
            if task.ended or not isinstance(task.awaited, Recallable) or not task.awaited.recall():
                return False
            task.end(CancelledError(f"{task.what} was cancelled before anything came"))
            self.free.remove(task)
            return True

    def stop(self, error: Exception) -> None:
        """Fail every call under way with `error`, and every later one with ClosedError."""
        with self.lock:
            if self.over is not None:
                return
            self.over = error
            self.over = error = self.judged(error)
            self._told = bool(self.ordered or self.free)
            for task in (*self.ordered, *self.free):
                task.end(error)
            self.ordered.clear()
            self.free.clear()
            self._wake.set()

    def _background(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self.name, daemon=True)
            self._thread.start()
        self._wake.set()

    def _work(self) -> None:
        pause = Pause()
        while self.over is None:
            if self._helpers or not (self.ordered or self.free):
                self._wake.wait()
                self._wake.clear()
            elif self.turn():
                pause = Pause()
            else:
                pause()
