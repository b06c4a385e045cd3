"""Where arrays may lie, and the streams they are used on."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.gpu.found import Found
from tests.gpu.kits import Kit

FLOAT = np.dtype(np.float32)
_STEPS = 12


def offsets(comm: Any, kit: Kit) -> Found:
    """Arrays from anywhere in their memory, each rank from elsewhere, and of odd lengths."""
    found = Found()
    for count in (1, 3, 17, 255, 4097, 100_003):
        for offset in (0, 4, 12, 16, 508, 4096):
            mine = (offset + 4 * comm.rank) * (1 + comm.rank % 2)
            x = kit.put(np.full(count, comm.rank + 1, FLOAT), mine)
            out = kit.put(np.zeros(count, FLOAT), offset)
            comm.all_reduce(x, out=out)
            right = np.full(count, comm.size * (comm.size + 1) / 2, FLOAT)
            found.equal(f"all_reduce of {count} from byte {mine} to {offset}", kit.get(out), right)
    return found


def small_elements_anywhere(comm: Any, kit: Kit) -> Found:
    """No pointer is a multiple of anything."""
    found = Found()
    kind = np.dtype(np.uint8)
    for offset in range(1, 8):
        x = kit.put(np.arange(1003).astype(kind), offset + comm.rank)
        right = (np.arange(1003) * comm.size).astype(kind)
        found.equal(f"all_reduce from byte {offset} + rank", kit.get(comm.all_reduce(x)), right)
    return found


def streams(comm: Any, kit: Kit) -> Found:
    """What was queued before a call is done before it, and what is queued after it sees the result; nobody waits on
    the host for that."""
    found = Found()
    for step in range(4):
        with kit.stream():
            x, out = kit.put(np.zeros(50_000, FLOAT)), kit.put(np.zeros(50_000, FLOAT))
            kit.busy()
            x[...] = comm.rank + step
            comm.all_reduce(x, out=out)
            x[...] = -1  # too late for anybody to see
            kept = kit.copied(out)
            out[...] = -2
            right = np.full(50_000, comm.size * (comm.size - 1) / 2 + comm.size * step, FLOAT)
            found.equal(f"all_reduce on a stream, step {step}", kit.get(kept), right)
    return found


def memory_comes_and_goes(comm: Any, kit: Kit) -> Found:
    """What is freed is given to another array, at the same base or elsewhere, on each rank in its own way."""
    found, random = Found(), np.random.default_rng(comm.rank)
    for step in range(_STEPS):
        count = 1000 * (step % 3 + 1) ** 4
        other = kit.put(np.zeros(int(random.integers(1, 1 << 20)), np.uint8))
        x = kit.put(np.full(count, comm.rank + step, FLOAT))
        right = np.full(count, comm.size * (comm.size - 1) / 2 + comm.size * step, FLOAT)
        found.equal(f"all_reduce in new memory, step {step}", kit.get(comm.all_reduce(x)), right)
        del x, other
        kit.trim()
    return found


def memory_that_cannot_be_shared(comm: Any, kit: Kit) -> Found:
    """On all ranks, and on one alone; so much that it goes through the slab in segments."""
    found = Found()
    for name, within in kit.apart():
        with within:
            alone = [kit.put(np.full(count, comm.rank + 1, FLOAT)) for count in (5, 3_000_001)]
        shared = [kit.put(np.full(count, comm.rank + 1, FLOAT)) for count in (5, 3_000_001)]
        for who, given in (("all ranks", alone), ("rank 0", alone if comm.rank == 0 else shared)):
            for x in given:
                right = np.full(x.shape, comm.size * (comm.size + 1) / 2, FLOAT)
                found.equal(f"all_reduce of {x.shape} in {name} on {who}", kit.get(comm.all_reduce(x)), right)
            part = given[0][: 1 + comm.rank % 5]
            parts = [1 + rank % 5 for rank in range(comm.size)]
            right = np.concatenate([np.full(count, rank + 1, FLOAT) for rank, count in enumerate(parts)])
            found.equal(f"all_gather in {name} on {who}", kit.get(comm.all_gather(part, counts=parts)), right)
    return found
