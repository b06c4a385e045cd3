"""Whether the other ranks are still there, for somebody who waits for them elsewhere."""

from __future__ import annotations

import numpy as np

from collx.engine import Engine, Pending
from collx.errors import CollxError

_TAG = 0x0C0DA  # of messages that nobody sends
_FOREVER = 1e8  # seconds


class Vigil:
    """Waits for messages that never come: what ends such a wait is what has happened to the peer, or to all."""

    def __init__(self, engine: Engine, rank: int, size: int) -> None:
        self._engine, self._peers = engine, [peer for peer in range(size) if peer != rank]
        self._nothing = np.empty(1, np.uint8)
        self._waits: list[Pending] = []

    def trouble(self) -> CollxError | None:
        """Why nobody should wait for the other ranks any more. Never blocks."""
        try:
            if not self._waits:
                at = self._nothing.ctypes.data
                self._waits = [self._engine.start_recv(at, 1, peer, _TAG, _FOREVER) for peer in self._peers]
            for wait in self._waits:
                if wait.done():
                    wait.wait(1.0)
        except CollxError as error:
            return error
        return None
