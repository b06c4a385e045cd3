"""The ways of calling: fresh results, counts, asynchronous calls, handles, graphs, and mistakes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import collx
from collx.errors import CollxError, MismatchError
from tests.gpu.found import Found
from tests.gpu.kits import Kit

FLOAT = np.dtype(np.float32)


def results(comm: Any, kit: Kit) -> Found:
    """Where no `out` is given the result is the same library's, in the input's shape."""
    found = Found()
    x = kit.put(np.full((3, 5), comm.rank, FLOAT))
    total = comm.all_reduce(x)
    found.true("all_reduce gives another library's array", kit.made(total))
    found.equal("all_reduce of rows", kit.get(total), np.full((3, 5), comm.size * (comm.size - 1) / 2, FLOAT))
    rows = comm.all_gather(x)
    found.equal("all_gather of rows", kit.get(rows), np.repeat(np.arange(comm.size), 15).reshape(-1, 5).astype(FLOAT))
    found.true("reduce gives others than the root something", (comm.reduce(x) is None) == (comm.rank != 0))
    return found


def counts(comm: Any, kit: Kit) -> Found:
    """Rows by the user's counts, none among them."""
    found, size, rank = Found(), comm.size, comm.rank
    parts = [3 * (r % 3) for r in range(size)]
    every = np.arange(sum(parts) * 2, dtype=FLOAT).reshape(-1, 2)
    begin = sum(parts[:rank])
    mine = every[begin : begin + parts[rank]]
    found.equal("all_gather by counts", kit.get(comm.all_gather(kit.put(mine), counts=parts)), every)
    found.equal("reduce_scatter by counts", kit.get(comm.reduce_scatter(kit.put(every), counts=parts)), mine * size)
    sent = [[(r + q) % 4 for q in range(size)] for r in range(size)]  # by sender and receiver
    blocks = [[np.full((sent[r][q], 2), 10 * r + q, FLOAT) for q in range(size)] for r in range(size)]
    came = comm.all_to_all(
        kit.put(np.concatenate(blocks[rank])),
        send_counts=sent[rank],
        recv_counts=[row[rank] for row in sent],
    )
    found.equal("all_to_all by counts", kit.get(came), np.concatenate([row[rank] for row in blocks]))
    return found


def asynchronous(comm: Any, kit: Kit) -> Found:
    """Several under way at once; the result is there for what is queued after `wait`."""
    found = Found()
    given = [kit.put(np.full(10_007, comm.rank + step, FLOAT)) for step in range(4)]
    works = [comm.all_reduce(x, async_op=True) for x in given]
    direct = comm.all_reduce(given[0])
    for step, work in enumerate(works):
        right = np.full(10_007, comm.size * (comm.size - 1) / 2 + comm.size * step, FLOAT)
        found.equal(f"asynchronous all_reduce {step}", kit.get(kit.copied(work.wait())), right)
    found.equal("an all_reduce behind it", kit.get(direct), np.full(10_007, comm.size * (comm.size - 1) / 2, FLOAT))
    return found


def handles(comm: Any, kit: Kit) -> Found:
    """Run again on what the input holds by then."""
    found = Found()
    x, out = kit.put(np.zeros(3001, FLOAT)), kit.put(np.zeros(3001, FLOAT))
    again = comm.plan("all_reduce", x, out=out)
    for step in range(5):
        x[...] = step + comm.rank
        again()
        right = np.full(3001, comm.size * (comm.size - 1) / 2 + comm.size * step, FLOAT)
        found.equal(f"a handle, step {step}", kit.get(out), right)
    return found


def ops_of_the_user(comm: Any, kit: Kit) -> Found:
    """They see NumPy arrays, in rank order."""
    found = Found()
    last = collx.ReduceOp.custom(lambda a, b: np.where(b > 0, b, a))
    x = kit.put(np.full(101, comm.rank if comm.rank < 2 else 0, FLOAT))
    found.equal("all_reduce by a function", kit.get(comm.all_reduce(x, last)), np.ones(101, FLOAT) * (comm.size > 1))
    return found


def graphs(comm: Any, kit: Kit, captures: bool) -> Found:
    """Captured once, replayed on what the input holds by then; `captures`: whether this sync mode can be."""
    found = Found()
    with kit.stream():
        x, out = kit.put(np.zeros(5003, FLOAT)), kit.put(np.zeros(5003, FLOAT))
        if not captures:
            with comm.split(0) as other:
                refused = other.plan("all_reduce", x, out=out)
                refused()
                comm.barrier()  # who fails to capture it ends what others have not ended yet
                said = _error(lambda: kit.captured(refused))
            found.true(f"a capture says {said!r}, and not which modes can be", "memop" in said and "spin" in said)
            return found
        again = comm.plan("all_reduce", x, out=out)
        again()
        replay = kit.captured(again)
        for step in range(6):
            x[...] = step + comm.rank
            replay()
            kept = kit.copied(out)
            out[...] = -1
            right = np.full(5003, comm.size * (comm.size - 1) / 2 + comm.size * step, FLOAT)
            found.equal(f"a graph, replay {step}", kit.get(kept), right)
        x[...] = comm.rank
        found.equal("a call between replays", kit.get(comm.all_reduce(x)), right - comm.size * 5)
        replay()
        found.equal("a replay after a call", kit.get(out), right - comm.size * 5)
    return found


def mistakes(comm: Any, kit: Kit) -> Found:
    """Are told before anything is sent, and the communicator is as good as before."""
    found = Found()
    x = kit.put(np.ones(8, FLOAT))
    mixed = _error(lambda: comm.all_reduce(x, out=np.zeros(8, FLOAT)), TypeError)
    found.true(f"an output on the host: {mixed!r}", "GPU" in mixed or "cuda" in mixed.lower())
    found.true("too short an output", bool(_error(lambda: comm.all_reduce(x, out=x[:4]), ValueError)))
    found.equal("all_reduce after mistakes", kit.get(comm.all_reduce(x)), np.full(8, comm.size, FLOAT))
    return found


def mismatches(comm: Any, kit: Kit) -> Found:
    """Other counts, ops, collectives than the other ranks': told on all of them, whose data is untouched."""
    found = Found()
    x = kit.put(np.full(8, comm.rank, FLOAT))
    last = comm.rank == comm.size - 1
    calls: list[Callable[[Any], object]] = [
        lambda other: other.all_reduce(x[:4] if last else x),
        lambda other: other.all_reduce(x, "max" if last else "sum"),
        lambda other: other.all_gather(x) if last else other.all_reduce(x),
    ]
    for index, call in enumerate(calls):
        other = comm.split(0)
        said = _error(lambda call=call, other=other: call(other), MismatchError)  # type: ignore[misc]
        found.true(f"mismatch {index} is not told", bool(said))
    found.equal("the input after mismatches", kit.get(x), np.full(8, comm.rank, FLOAT))
    return found


def _error(call: Callable[[], object], kind: type[BaseException] = CollxError) -> str:
    try:
        call()
    except kind as error:
        return str(error)
    return ""
