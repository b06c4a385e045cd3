"""Makes the connections that the native engine wants."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable

from collx import _core


class Dialer:
    """Calls `dial(communicator, peer)` for each connection that `control` wants, each in a thread of its own: one may
    take long, as where its peer is stopped. Until it is closed, in a thread that does nothing else."""

    def __init__(self, control: _core.Control, dial: Callable[[int, int], None]) -> None:
        self._control, self._dial = control, dial
        self._end = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="collx-dialer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Idempotent."""
        if self._thread.is_alive():
            os.eventfd_write(self._end, 1)
            self._thread.join()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._control.fileno(), select.POLLIN)
        poll.register(self._end, select.POLLIN)
        while self._end not in {fd for fd, _ in poll.poll()}:
            for wanted in self._control.wants():
                threading.Thread(target=self._dial, args=wanted, name="collx-dial", daemon=True).start()
        os.close(self._end)
