"""The memory of messages: what is sent of a buffer, and where in one what is received goes."""

from __future__ import annotations

from typing import Any

import numpy as np

from collx.compat.mpi4py.constants import ANY_SOURCE, PROC_NULL
from collx.compat.mpi4py.layout import Bytes
from collx.compat.mpi4py.specification import Message, message

NONE = np.empty(0, np.uint8)
_PLAIN = {np.dtype(code).str for code in "?bBhHiIlLqQefdFD"}


class Room:
    """Memory for the message that `given` means: its own or, where that is not contiguous, some from which it is put
    there."""

    def __init__(self, given: Any, source: int = ANY_SOURCE) -> None:
        self._scattered: Message | None = None
        if _plain(given) and source != PROC_NULL:
            self.array: Any = given
            return
        whole = message(given, True, source)
        self.array = whole.view()
        if self.array is None:
            self.array, self._scattered = np.empty(whole.nbytes, np.uint8), whole

    def landed(self, nbytes: int) -> None:
        """So many bytes have come."""
        if self._scattered is not None:
            self._scattered.put(self.array[:nbytes])

    @property
    def scattered(self) -> bool:
        """Whether `landed` has anything to do."""
        return self._scattered is not None

    @property
    def data(self) -> Bytes:
        """All of it as bytes."""
        return self.array.reshape(-1).view(np.uint8)


def sent(buf: Any, dest: int) -> Bytes:
    """The bytes of what is to be sent."""
    return buf if _plain(buf) and dest != PROC_NULL else message(buf, False, dest).data()


def _plain(given: Any) -> bool:
    """Whether it is what most programs send and receive, which collx takes as it is."""
    return type(given) is np.ndarray and given.dtype.str in _PLAIN and given.flags.c_contiguous
