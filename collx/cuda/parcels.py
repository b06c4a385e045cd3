"""Messages from and to GPUs: they go by way of the host, in pinned memory that is used again."""

from __future__ import annotations

import ctypes
import time
from collections import defaultdict

import numpy as np

from collx.errors import TimeoutError
from collx.transports.cuda.driver import Driver, driver
from collx.transports.waiting import Pause
from collx.types import Array, Where

_SMALLEST = 4096
_KEPT = 64 << 20  # bytes of a piece of memory that is kept for the next message; a larger one is given back
_free: defaultdict[tuple[Driver, int], list[int]] = defaultdict(list)  # by bytes, each a power of two


class Parcel:
    """`nbytes` bytes of the host as `array`, and the way to the GPU and back. The memory is its own until it goes."""

    def __init__(self, nbytes: int, ordinal: int) -> None:
        self._ordinal = ordinal
        self._room, self._at = 0, 0  # nothing to give back, where the driver has nothing to give
        self._driver = driver()
        if nbytes:
            room = max(_SMALLEST, 1 << (nbytes - 1).bit_length())
            free = _free[self._driver, room]
            with self._driver.on(ordinal):
                self._at = free.pop() if free else self._driver.allocate_host(room)
            self._room = room
        self.array: Array = np.empty(0, np.uint8)
        if nbytes:
            self.array = np.frombuffer(memoryview((ctypes.c_char * nbytes).from_address(self._at)).cast("B"), np.uint8)

    def load(self, address: int, where: Where, limit: float) -> None:
        """Fill it with what lies on the GPU once everything that is queued on the stream is done."""
        self._copy(self._at, address, where, limit)

    def unload(self, address: int, where: Where, limit: float) -> None:
        """Bring it to the GPU, behind everything that is queued on the stream."""
        self._copy(address, self._at, where, limit)

    def _copy(self, target: int, source: int, where: Where, limit: float) -> None:
        """Returns when it is done, so that the memory can be used again. Raises TimeoutError after `limit` seconds."""
        if not self.array.nbytes:
            return
        cuda, until, pause = self._driver, time.monotonic() + limit, Pause()
        with cuda.on(where.ordinal):
            event = cuda.event()
            try:
                cuda.copy(target, source, self.array.nbytes, where.stream)
                cuda.record(event, where.stream)
                while not cuda.done(event):
                    if time.monotonic() >= until:
                        raise TimeoutError(f"what was queued on the stream before did not end in {limit:g} s")
                    pause()
            except BaseException:
                self._room = 0  # whatever is still to be copied keeps the memory
                raise
            finally:
                cuda.destroy_event(event)

    def __del__(self) -> None:
        if self._room > _KEPT:
            with self._driver.on(self._ordinal):
                self._driver.free_host(self._at)
        elif self._room:
            _free[self._driver, self._room].append(self._at)
