"""A shared-memory all_reduce of float32 written by hand (`perf/native/handwritten.cpp`), for processes forked from the
one that made its memory."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

from collx.errors import CollxError
from collx.perf.compiled import library

MOST = 8  # ranks
LINES, REP_MOVSB, LIBC = range(3)  # ways to copy

_Pointer = ctypes.c_void_p


class Choices(ctypes.Structure):
    """What may be tried; `Choices` in handwritten.hpp says what each is."""

    _fields_ = (
        ("one_shot", ctypes.c_int64),
        ("one_shot_chunk", ctypes.c_int64),
        ("chunk", ctypes.c_int64),
        ("pieces", ctypes.c_int64),
        ("bypass_out", ctypes.c_int64),
        ("bypass_stage", ctypes.c_int32),
        ("bypass_gather", ctypes.c_int32),
        ("twins", ctypes.c_int32),
        ("copy", ctypes.c_int32),
        ("ahead", ctypes.c_int32),
        ("spins", ctypes.c_int32),
        ("yields", ctypes.c_int32),
        ("fence", ctypes.c_int32),
    )


def choices(crowded: bool, **other: int) -> Choices:
    """The best that was measured, for ranks that have cores of their own or are `crowded`, with some of it changed."""
    best = {
        "one_shot": (16 << 10) if crowded else (256 << 10),
        "one_shot_chunk": 32 << 10,
        "chunk": (32 << 10) if crowded else (128 << 10),
        "pieces": 2,
        "bypass_out": 8 << 20,
        "ahead": 1,
        "spins": 8 if crowded else 2000,
        "yields": 50,
        "fence": 1,
    }
    return Choices(**{**best, **other})


class Memory:
    """The ranks' shared memory: to be made before they are forked."""

    def __init__(self, size: int) -> None:
        if not 1 <= size <= MOST:
            raise CollxError(f"the hand-written all_reduce takes 1 to {MOST} ranks, not {size}")
        compiled = library()
        compiled.stick_bytes.restype = ctypes.c_size_t
        compiled.stick_join.restype = _Pointer
        self.size = size
        self._map = mmap.mmap(-1, int(compiled.stick_bytes(size)))
        self._address = np.frombuffer(self._map, np.uint8).ctypes.data

    def join(self, rank: int, chosen: Choices) -> Hand:
        """Rank `rank`'s end, in its process; each may be joined once."""
        return Hand(self, library().stick_join(_Pointer(self._address), rank, self.size, ctypes.byref(chosen)))


class Hand:
    """One rank of the hand-written all_reduce. All ranks make the same calls in the same order."""

    def __init__(self, memory: Memory, rank: int) -> None:
        self._memory = memory
        self._rank = _Pointer(rank)

    def choose(self, chosen: Choices) -> None:
        """Other choices from the next call on; all ranks alike, and all calls before must have ended on all of them."""
        library().stick_choose(self._rank, ctypes.byref(chosen))

    def all_reduce(self, x: npt.NDArray[Any], out: npt.NDArray[Any], times: int = 1) -> None:
        """The sum over ranks of float32 arrays, `times` times."""
        self._call("stick_all_reduce", x, out, times)

    def zero_copy(self, x: npt.NDArray[Any], out: npt.NDArray[Any], times: int = 1) -> None:
        """The same where `x` and `out` of every rank lie in memory mapped before the ranks were forked."""
        self._call("stick_zero_copy", x, out, times)

    def _call(self, name: str, x: npt.NDArray[Any], out: npt.NDArray[Any], times: int) -> None:
        if x.dtype != np.float32 or out.dtype != np.float32 or x.shape != out.shape:
            raise CollxError("the hand-written all_reduce takes two float32 arrays of one shape")
        addresses = (_Pointer(x.ctypes.data), _Pointer(out.ctypes.data))
        getattr(library(), name)(self._rank, *addresses, ctypes.c_size_t(x.size), times)

    def close(self) -> None:
        library().stick_leave(self._rank)
