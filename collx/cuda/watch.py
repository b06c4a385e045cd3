"""Sees to it that no stream waits for ever for a peer that does not come.

Where streams wait for peers by themselves nobody is there to look at the clock, or at whether the peer lives. So calls
that are queued are handed to a thread, which looks after those that take long. It ends what cannot end by itself, and
then the communicator is broken: what a call raises next, and what was printed, say why.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable

from collx.cuda.control import Deadline
from collx.errors import CollxError, TimeoutError
from collx.transports.cuda.driver import THREAD_STREAM, CudaError, Driver

TURN = 0.02  # seconds between looks
SOON = 0.1  # seconds that a call may take before it is worth asking whether its peers live, or whether it still ends


class Queued:
    """A call that was queued: what it is, and until when it may take. It keeps what it uses."""

    def __init__(self, driver: Driver, ordinal: int, stream: int, what: str, deadline: Deadline, keep: object) -> None:
        self.what, self.deadline, self.begun = what, deadline, time.monotonic()
        self._driver, self._ordinal, self._stream, self._keep = driver, ordinal, stream, keep
        self._lock = threading.Lock()  # two threads ask
        self._event: int | None = driver.event()
        driver.record(self._event, stream)

    def precede(self, stream: int) -> None:
        """Have what is queued on `stream` from now on come after it."""
        with self._lock:
            another = stream != self._stream or stream == THREAD_STREAM  # which is another one in each thread
            if self._event is not None and another:
                self._driver.wait_event(stream, self._event)

    def done(self) -> bool:
        """Whether it has ended; then it needs nothing any more."""
        with self._lock:
            if self._event is not None:
                with self._driver.on(self._ordinal):
                    if not self._driver.done(self._event):
                        return False
                    self._driver.destroy_event(self._event)
                self._event = self._keep = None
            return True


class Watch:
    """Looks after a communicator's queued calls, in a thread that is there while there are any."""

    def __init__(
        self,
        driver: Driver,
        peers: Callable[[], CollxError | None],
        give_up: Callable[[str, BaseException], None],
        releases: bool = True,
    ) -> None:
        """`peers` tells what has happened to one of them; `give_up(what, error)` ends all waits that can be ended:
        all of them where it `releases`."""
        self._driver, self._peers, self._give_up = driver, peers, give_up
        self._fate = "what its stream was waiting for is given up"
        if not releases:
            self._fate = "its stream may wait for ever, which nothing but the end of this process ends"
        self._calls: deque[Queued] = deque()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._over = False

    def add(self, call: Queued) -> None:
        """Look after a call that was just queued, behind all that were added before."""
        with self._lock:
            self._calls.append(call)
            if self._thread is None and not self._over:
                self._thread = threading.Thread(target=self._look, name="collx watch", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Look after nothing any more. Idempotent."""
        with self._lock:
            self._over = True
            self._calls.clear()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _look(self) -> None:
        self._driver.beside_captures()
        given_up: tuple[str, CollxError] | None = None
        while (oldest := self._oldest()) is not None:
            if given_up is None:
                error = self._trouble(oldest)
                if error is None or self._ends(oldest):
                    continue
                given_up = oldest.what, error
                print(f"collx: {error}; {self._fate}", file=sys.stderr, flush=True)
            self._give_up(*given_up)  # again and again: what a peer had queued before may undo it

    def _oldest(self) -> Queued | None:
        """A turn later, the oldest call that has not ended; None where the thread is to end."""
        time.sleep(TURN)
        with self._lock:
            self._drop_done()
            if self._calls and not self._over:
                return self._calls[0]
            self._thread = None
            return None

    def _ends(self, call: Queued) -> bool:
        """Whether it still ends: a peer that has left may have done its part just before."""
        time.sleep(SOON)
        return call.done()

    def _drop_done(self) -> None:
        try:
            while self._calls and self._calls[0].done():
                self._calls.popleft()
        except CudaError:  # a device that failed, or is gone: the next call will tell
            self._calls.clear()

    def _trouble(self, call: Queued) -> CollxError | None:
        if call.deadline.over:
            return TimeoutError(
                f"{call.what} was queued {call.deadline.seconds:g} s ago and its peers' GPUs have not come to it; is"
                " a rank stopped, or is timeout= too short?"
            )
        return self._peers() if time.monotonic() > call.begun + SOON else None
