"""The memory of GPUs that are not there: every allocation a memfd, at an address that an earlier one may have had."""

from __future__ import annotations

import bisect
import ctypes
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass

GRAIN = 512  # what bases are multiples of, as a driver's are
PAGE = mmap.PAGESIZE
SPAN = 1 << 34  # of addresses; nothing is behind them until something is mapped there
FREED, POISONED = 0xDB, 1 << 20  # what freed memory is filled with, for those who read it all the same; and how much
UNSET = 0xA7  # what memory holds that nobody has set

FIXED, ANONYMOUS, NORESERVE = 0x10, 0x20, 0x4000
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def _map(address: int | None, nbytes: int, protection: int, flags: int, fd: int = -1) -> int:
    found = _libc.mmap(address, nbytes, protection, flags, fd, 0)
    if found == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")
    return int(found)


@dataclass(slots=True)
class Block:
    """Memory that is mapped: of the device `ordinal`, or -1 for the host's. `handle` tells other processes how to
    find it; empty where they cannot."""

    base: int
    nbytes: int
    ordinal: int
    generation: int
    fd: int = -1
    handle: bytes = b""
    opened: int = 0  # how often, where it is another process's
    context: int = 0  # the device that it was opened on


def poison(block: Block) -> None:
    """Leave what nobody should rely on; of a slab, which is large and mostly never used, the beginning."""
    ctypes.memset(block.base, FREED, min(block.nbytes, POISONED))


class Arena:
    """Addresses of one process, lowest first, so that what is freed is soon somebody else's."""

    def __init__(self) -> None:
        self._begin = _map(None, SPAN, mmap.PROT_READ, mmap.MAP_PRIVATE | ANONYMOUS | NORESERVE)
        self._blocks: list[Block] = []  # by base

    def __del__(self) -> None:
        self.end()
        _libc.munmap(self._begin, SPAN)

    def end(self) -> None:
        """Give back what a process has few of; who still looks at the memory finds it."""
        for block in self._blocks:
            if block.fd >= 0:
                os.close(block.fd)
                block.fd = -1

    def add(self, nbytes: int, ordinal: int, generation: int, fd: int = -1) -> Block:
        """Map `nbytes` of the file there, or of nobody else's memory, at the lowest base that is free."""
        base = self._begin
        for block in self._blocks:
            if base + nbytes <= block.base:
                break
            base = block.base + -(-max(block.nbytes, 1) // PAGE) * PAGE
        kind = mmap.MAP_SHARED if fd >= 0 else mmap.MAP_PRIVATE | ANONYMOUS | NORESERVE
        _map(base, max(nbytes, 1), mmap.PROT_READ | mmap.PROT_WRITE, kind | FIXED, fd)
        block = Block(base, nbytes, ordinal, generation, fd)
        bisect.insort(self._blocks, block, key=lambda other: other.base)
        return block

    def drop(self, block: Block) -> None:
        """Take the memory away. Whoever still looks there finds what is nobody's, and no longer the file's."""
        self._blocks.remove(block)
        writable = mmap.PROT_READ | mmap.PROT_WRITE
        _map(block.base, max(block.nbytes, 1), writable, mmap.MAP_PRIVATE | ANONYMOUS | NORESERVE | FIXED)
        poison(block)
        if block.fd >= 0:
            os.close(block.fd)

    def at(self, address: int) -> Block | None:
        """The block that the address lies in."""
        index = bisect.bisect_right(self._blocks, address, key=lambda block: block.base) - 1
        if index >= 0 and address < self._blocks[index].base + max(self._blocks[index].nbytes, 1):
            return self._blocks[index]
        return None

    def opened(self, handle: bytes) -> Block | None:
        """The block that this handle was opened as, whatever it leads to by now."""
        return next((block for block in self._blocks if block.opened and block.handle == handle), None)

    def first(self, *ordinals: int) -> list[Block]:
        return [block for block in self._blocks if block.ordinal in ordinals]


class Pool:
    """Hands out parts of chunks, as CuPy's and torch's pools do, and keeps what it gets back."""

    def __init__(self, chunk: int = 1 << 20) -> None:
        self._chunk = chunk
        self._free: dict[int, list[int]] = {}  # rounded size -> addresses
        self._room = (0, 0)  # the address and bytes that are left of the newest chunk

    def take(self, nbytes: int, allocate: Callable[[int], int]) -> int:
        size = -(-max(nbytes, 1) // GRAIN) * GRAIN
        if self._free.get(size):
            return self._free[size].pop()
        if self._room[1] < size:
            chunk = max(self._chunk, size)
            self._room = (allocate(chunk), chunk)
        address, left = self._room
        self._room = (address + size, left - size)
        return address

    def give_back(self, address: int, nbytes: int) -> None:
        self._free.setdefault(-(-max(nbytes, 1) // GRAIN) * GRAIN, []).append(address)
