"""Arrays about 2^31 elements and bytes, where a 32-bit count, length or offset would go wrong.

They need up to 6 GiB, one test at a time; where there is less they are skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from collx import Communicator
from collx.types import Array
from tests.ranks import ranks

EDGE = 2**31
PRIME = 251  # the period of what arrays hold: no power of two, so what lies elsewhere differs
CHUNK = PRIME << 11


def pattern(length: int, dtype: type = np.uint8, start: int = 0) -> Array:
    return ((np.arange(length) + start) % PRIME).astype(dtype)


def fill(x: Array, start: int = 0) -> None:
    """x[i] = (i + start) % PRIME"""
    period = pattern(CHUNK, x.dtype.type, start)
    for at in range(0, x.size, CHUNK):
        part = x[at : at + CHUNK]
        part[...] = period[: part.size]


def check(x: Array, start: int = 0, factor: int = 1) -> None:
    period = pattern(CHUNK, x.dtype.type, start) * x.dtype.type(factor)
    for at in range(0, x.size, CHUNK):
        part = x[at : at + CHUNK]
        assert np.array_equal(part, period[: part.size]), f"from element {at} on"


def whole(comm: Communicator, make: Callable[[Communicator, int], Array]) -> None:
    x = make(comm, EDGE + 1)
    fill(x, 0 if comm.rank == 0 else 9)
    comm.broadcast(x)
    check(x)
    assert comm.all_reduce(x, out=x) is x
    check(x, factor=2)


def blocks(comm: Communicator) -> None:
    """Blocks of 2^30 + 1, together more than 2^31, in one array each."""
    length, rank = EDGE // 2 + 1, comm.rank
    memory = np.empty(2 * length, np.uint8)
    mine = memory[rank * length : (rank + 1) * length]
    fill(mine, rank)
    assert comm.all_gather(mine, out=memory) is memory
    check(memory[:length])
    check(memory[length:], 1)
    assert comm.reduce_scatter(memory, "max", out=mine) is mine
    check(mine, rank)
    comm.gather(mine, 1, out=memory if rank == 1 else None)
    comm.scatter(memory, 1, out=mine)
    check(mine, rank)


def uneven(comm: Communicator) -> None:
    """Parts that lie behind 2^31 others, and one larger than that which stays."""
    large, rank = EDGE + 1, comm.rank
    sent, received = ((large, 5), (large, 3)) if rank == 0 else ((3, 7), (5, 7))
    x = np.empty(sum(sent), np.uint8)
    fill(x, rank)
    out = comm.all_to_all(x, send_counts=sent, recv_counts=received)
    if rank == 0:
        check(out[:large])
        check(out[large:], 1)
    else:
        check(out[:5], large)
        check(out[5:], 1 + 3)


def crossing(comm: Communicator) -> None:
    """Parts of more than 2^31 that change places."""
    large, rank = EDGE + 1, comm.rank
    x = np.empty(large, np.uint8)
    fill(x, rank)
    if rank == 0:
        comm.send(x, 1)
        comm.all_to_all(x, send_counts=(0, large), recv_counts=(0, 1))
    else:
        comm.recv(x, 0)
        check(x)
        one = np.full(1, 77, np.uint8)
        check(comm.all_to_all(one, send_counts=(1, 0), recv_counts=(large, 0), out=x))


def floats(comm: Communicator) -> None:
    """More than 2^31 bytes of fewer elements."""
    x = np.empty(EDGE // 4 + 2, np.float32)
    fill(x)
    comm.all_reduce(x, out=x)
    check(x, factor=2)


def wide(comm: Communicator) -> None:
    """2^31 and one more elements of two bytes. The root's are zeros that were never written, which take no memory."""
    x, marks = np.zeros(EDGE + 2, np.int16), (0, 1, EDGE - 1, EDGE)
    for mark in marks:
        x[1 + mark] = 1 + mark % PRIME
    mine = comm.scatter(x, counts=(1, EDGE + 1))
    if comm.rank == 1:
        assert [mine[mark] for mark in marks] == [1 + mark % PRIME for mark in marks]
        assert np.count_nonzero(mine) == len(marks)
    else:
        assert mine == 0


def ordinary(comm: Communicator, length: int) -> Array:
    return np.empty(length, np.uint8)


def shared(comm: Communicator, length: int) -> Array:
    return comm.empty(length, np.uint8)


CASES: dict[str, tuple[int, Callable[..., None], tuple[Any, ...]]] = {  # with the GiB they need
    "whole": (6, whole, (ordinary,)),
    "whole-shared": (6, whole, (shared,)),
    "blocks": (6, blocks, ()),
    "uneven": (6, uneven, ()),
    "crossing": (6, crossing, ()),
    "floats": (6, floats, ()),
    "wide": (6, wide, ()),
}


@pytest.mark.parametrize("case", CASES)
def test_more_than_32_bits_count(case: str) -> None:
    needed, body, more = CASES[case]
    with open("/proc/meminfo") as memory:
        available = next(int(line.split()[1]) for line in memory if line.startswith("MemAvailable")) >> 20
    if available < needed + 2:
        pytest.skip(f"needs {needed} GiB of memory, with 2 to spare, and there are {available}")
    ranks("shm", 2, body, *more)
