"""Looks every now and then whether a call that nothing can interrupt has outlived its deadline."""

from __future__ import annotations

import threading
import time
import weakref
from typing import Protocol

INTERVAL = 0.25  # seconds


class Watched(Protocol):
    def look(self) -> None:
        """Called from a thread of its own; ends the job where it is too late."""
        ...


_watched: weakref.WeakSet[Watched] = weakref.WeakSet()
_thread: threading.Thread | None = None


def watch(one: Watched) -> None:
    """Have it looked at for as long as it lives, by the one thread of this process that does so."""
    global _thread
    _watched.add(one)
    if _thread is None or not _thread.is_alive():
        _thread = threading.Thread(target=_look, name="collx: deadlines of MPI's collectives", daemon=True)
        _thread.start()


def _look() -> None:
    while True:
        time.sleep(INTERVAL)
        for one in list(_watched):
            one.look()
