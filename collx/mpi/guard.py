"""All ranks' word for it that they make the same call, before MPI touches any of their data."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

from mpi4py import MPI

_WORDS = struct.Struct("=QQQQ")
_ALL = 2**64 - 1

# How a call is made. MPI's blocking, persistent and nonblocking collectives do not meet each other.
BLOCKING = 0  # or, of a large one, by a persistent request that all ranks make anew; above: the number of one they have
NONBLOCKING = _ALL


class Guard:
    """A small all-reduce on `comm`, of the largest of {chain, ~chain, way, ~way}.

    Where the first two are what each rank gave, all make the same call. They make it in the way that they gave if all
    gave the same, nonblocking if one gave that, else as BLOCKING says. One at a time; persistent where MPI has that,
    which takes half the time.
    """

    def __init__(self, comm: Any) -> None:
        self._comm = comm
        self._mine, self._all = bytearray(_WORDS.size), bytearray(_WORDS.size)  # mpi4py does not keep them alive
        self._ended = True
        self._persistent: Any = None
        with contextlib.suppress(NotImplementedError):  # before MPI 4
            self._persistent = comm.Allreduce_init(*self._memory(), MPI.MAX)
        self._request = self._persistent

    def start(self, chain: int, way: int) -> None:
        _WORDS.pack_into(self._mine, 0, chain, chain ^ _ALL, way, way ^ _ALL)
        self._ended = False
        if self._persistent is not None:
            self._persistent.Start()
        else:
            self._request = self._comm.Iallreduce(*self._memory(), MPI.MAX)

    def soon(self, chain: int, way: int, looks: int) -> bool:
        """Start it; whether after so many looks at most all ranks have said the same."""
        self.start(chain, way)
        test = self._request.Test
        for _ in range(looks):
            if test():
                self._ended = True
                return self._mine == self._all
        return False

    def done(self) -> bool:
        if not self._ended:
            self._ended = self._request.Test()
        return self._ended

    def outcome(self) -> tuple[bool, int]:
        """Once it is done: whether all ranks make the same call, and the way that they make it."""
        chain, unchain, *_ = _WORDS.unpack(self._mine)
        most, least, way, unway = _WORDS.unpack(self._all)
        alike = way == NONBLOCKING or way == unway ^ _ALL
        return (most, least) == (chain, unchain), way if alike else BLOCKING

    @property
    def persistent(self) -> bool:
        """Whether MPI has persistent collectives."""
        return self._persistent is not None

    def close(self) -> bool:
        """Give the request back; whether that could be done: not in a call that some rank does not make."""
        if not self.done():
            return False
        if self._persistent is not None:
            self._persistent.Free()
            self._persistent = None
        return True

    def _memory(self) -> list[Any]:
        return [[self._mine, MPI.UINT64_T], [self._all, MPI.UINT64_T]]
