"""The messages that a rank sends itself: no transport carries them, and nobody else can be waited for."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque

import numpy as np

from collx.engine import Pending
from collx.errors import TimeoutError
from collx.types import Array


class Oneself:
    """What rank `rank` sent itself, and what it means to receive, each in order and by tag."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self._kept: defaultdict[int, deque[Array]] = defaultdict(deque)
        self._awaited: defaultdict[int, deque[_Receive]] = defaultdict(deque)

    def check(self, nbytes: int, tag: int, coming: int | None = None) -> None:
        """Raise ValueError where a receive of `nbytes` would not be served at once, not even if a message of
        `coming` bytes were sent first."""
        if self._awaited[tag]:
            coming = None  # the receives that came first get it
        found = self._kept[tag][0].nbytes if self._kept[tag] else coming
        if found is None:
            raise ValueError(f"rank {self.rank} has sent itself nothing with tag {tag}: it would wait forever")
        self._same(found, nbytes)

    def send(self, array: Array, tag: int) -> None:
        """Hand `array` to the receive that waits for it, or keep a copy."""
        if not self._awaited[tag]:
            self._kept[tag].append(array.copy())
            return
        self._same(array.nbytes, self._awaited[tag][0].target.nbytes)
        self._awaited[tag].popleft().serve(array)

    def recv(self, target: Array, tag: int, timeout: float) -> Pending:
        """A receive that is served by the first message kept, or else by one still to come."""
        receive = _Receive(target, f"rank {self.rank}: recv from itself (tag {tag})", timeout)
        if self._kept[tag]:
            self._same(self._kept[tag][0].nbytes, target.nbytes)
            receive.serve(self._kept[tag].popleft())
        else:
            self._awaited[tag].append(receive)
        return receive

    def _same(self, sent: int, received: int) -> None:
        if sent != received:
            raise ValueError(f"rank {self.rank} sent itself {sent} bytes, but receives {received}")


class _Receive:
    def __init__(self, target: Array, what: str, timeout: float) -> None:
        self.target = target
        self._what = what
        self._deadline = time.monotonic() + timeout
        self._served = threading.Event()

    def serve(self, array: Array) -> None:
        self.target.reshape(-1).view(np.uint8)[:] = array.reshape(-1).view(np.uint8)
        self._served.set()

    def done(self) -> bool:
        return self._served.is_set()

    def wait(self, timeout: float) -> None:
        if not self._served.wait(max(min(timeout, self._deadline - time.monotonic()), 0)):
            raise TimeoutError(f"{self._what} has not ended in time: nothing was sent")
