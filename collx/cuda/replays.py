"""Sees to it that no replay of a CUDA graph waits for ever for a peer that does not come.

Nobody tells collx that a graph is replayed. So a captured call counts on the GPU how often it has begun and ended, in
words that the host sees, and a thread looks at them for as long as there are such calls.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable

from collx.cuda.kernels import Kernels
from collx.errors import CollxError, TimeoutError
from collx.transports.cuda.driver import Driver

TURN = 0.1  # seconds between looks
WORD = 8


class Replays:
    """Looks after a communicator's captured calls. Made before the first capture, in which nothing may be allocated."""

    def __init__(
        self,
        driver: Driver,
        ordinal: int,
        kernels: Kernels,
        peers: Callable[[], CollxError | None],
        give_up: Callable[[str, BaseException], None],
    ) -> None:
        """As `Watch`. `give_up` is called again where more replays follow."""
        self._driver, self._ordinal, self._kernels, self._peers, self._give_up = (
            driver,
            ordinal,
            kernels,
            peers,
            give_up,
        )
        kernels.load("count")
        self._words = driver.allocate_host(2 * WORD)
        ctypes.memset(self._words, 0, 2 * WORD)
        self._limit = 0.0
        self._what = ""
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, what: str, stream: int, limit: float) -> None:
        """Have what is captured next counted as begun, and given `limit` seconds."""
        self._kernels.count(self._words, stream)
        self._what, self._limit = what, max(limit, self._limit)

    def end(self, stream: int) -> None:
        """Have it counted as ended."""
        self._kernels.count(self._words + WORD, stream)
        if self._thread is None:
            self._thread = threading.Thread(target=self._look, name="collx replays", daemon=True)
            self._thread.start()

    def close(self, ended: bool) -> None:
        """Look after nothing any more. Idempotent. The words of captured calls are kept, as a graph that is still there
        would write them, and so they are where not all that was queued has `ended`."""
        self._over.set()
        if self._thread is None and self._words and ended:
            self._driver.free_host(self._words)
            self._words = 0
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _look(self) -> None:
        self._driver.beside_captures()
        ended, since, told = -1, 0.0, False
        while not self._over.wait(TURN):
            now = ctypes.c_uint64.from_address(self._words + WORD).value
            if now != ended or ctypes.c_uint64.from_address(self._words).value == now:
                ended, since = now, time.monotonic()
                continue
            error = self._trouble(time.monotonic() - since)
            if error is not None:
                if not told:
                    print(f"collx: {error}; what its graph waits for is given up", file=sys.stderr, flush=True)
                told = True
                with self._driver.on(self._ordinal):
                    self._give_up(self._what, error)

    def _trouble(self, seconds: float) -> CollxError | None:
        if seconds > self._limit:
            return TimeoutError(
                f"{self._what}, replayed by a graph, has waited {self._limit:g} s for its peers' GPUs; do all ranks"
                " replay theirs as often, or is timeout= too short?"
            )
        return self._peers() if seconds > TURN else None
