"""Asynchronous calls: they complete in order, alone, dropped or awaited, and tell at `wait` what went wrong."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref

import numpy as np
import pytest

import collx
from collx import Communicator, ReduceOp, Work
from collx.types import Array
from tests.collectives.numbers import same
from tests.ranks import ranks


def many_in_flight(comm: Communicator) -> None:
    works = [comm.all_reduce(np.full(100 * (i % 7), float(i + comm.rank)), async_op=True) for i in range(60)]
    assert all(isinstance(work, Work) for work in works)
    after = comm.all_reduce(np.array([1.0]))  # a synchronous call takes its turn
    assert all(work.done() for work in works)
    assert after == comm.size
    for i, work in reversed(list(enumerate(works))):
        wanted = np.full(100 * (i % 7), float(comm.size * i + sum(range(comm.size))))
        same(work.wait(), wanted)
        assert work.wait() is work.wait(timeout=1.0)


def every_collective(comm: Communicator) -> None:
    size, rank = comm.size, comm.rank
    x = np.arange(size, dtype=np.float64) + rank
    given = [np.arange(size, dtype=np.float64) + r for r in range(size)]
    y, counts = x.copy(), [1] * size
    works = [
        comm.all_reduce(x, async_op=True),
        comm.reduce_scatter(x, async_op=True),
        comm.all_gather(x, async_op=True),
        comm.all_to_all(x, async_op=True),
        comm.all_to_all(x, send_counts=counts, recv_counts=counts, async_op=True),
        comm.broadcast(y, async_op=True),
        comm.reduce(x, root=size - 1, async_op=True),
        comm.gather(x, async_op=True),
        comm.scatter(x, async_op=True),
        comm.scan(x, async_op=True),
        comm.exscan(x, async_op=True),
    ]
    results = [work.wait() for work in works]
    total = np.asarray(sum(given))
    same(results[0], total)
    same(results[1], total[rank : rank + 1])
    same(results[2], np.concatenate(given))
    same(results[3], np.array([array[rank] for array in given]))
    same(results[4], results[3])
    assert results[5] is y
    same(y, given[0])
    assert (results[6] is None) == (rank != size - 1)
    assert (results[7] is None) == (rank != 0)
    same(results[8], given[0][rank : rank + 1])
    same(results[9], np.asarray(sum(given[: rank + 1])))
    same(results[10], np.asarray(sum(given[:rank]) + np.zeros(size)))


def dropped(comm: Communicator) -> None:
    met = comm.barrier(async_op=True)
    assert met is not None
    assert met.wait() is None
    out = np.zeros(50_000)
    comm.all_reduce(np.ones(50_000), out=out, async_op=True)  # neither the Work nor the input is kept
    gc.collect()
    comm.barrier()
    same(out, np.full(50_000, float(comm.size)))
    for _ in range(40):
        comm.all_reduce(np.ones(1000), async_op=True)
    comm.barrier()
    for _ in range(10):
        comm.all_reduce(np.ones(1000), async_op=True)
    comm.close()  # which lets them end
    assert comm.closed


def memory_is_given_up(comm: Communicator) -> None:
    x = np.ones(1000)
    gone = weakref.ref(x)
    work = comm.all_reduce(x, async_op=True)
    del x
    comm.barrier()
    result = work.wait()
    gc.collect()
    assert gone() is None
    same(result, np.full(1000, float(comm.size)))


def awaited(comm: Communicator) -> None:
    async def main() -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        first = comm.all_reduce(np.array([1.0]), async_op=True)
        second = comm.all_gather(np.array([comm.rank]), async_op=True)
        one, two = await asyncio.gather(_result(first), _result(second))
        same(one, np.array([float(comm.size)]))
        same(two, np.arange(comm.size))
        ticking.cancel()
        assert ticks > 0

    async def _result(work: Work) -> object:
        return await work

    asyncio.run(main())


def waiting_has_its_own_timeout(comm: Communicator) -> None:
    if comm.rank == 0:
        work = comm.all_reduce(np.ones(3), async_op=True)
        with pytest.raises(collx.TimeoutError):
            work.wait(timeout=0.05)
        assert not work.done()
        comm.send(np.zeros(1), 1)
        same(work.wait(), np.full(3, 2.0))
    else:
        comm.recv(np.zeros(1), 0)
        same(comm.all_reduce(np.ones(3)), np.full(3, 2.0))
    comm.barrier()  # and the communicator is as good as before


def errors_come_at_wait(comm: Communicator) -> None:
    if comm.rank == 0:
        work = comm.all_reduce(np.ones(3), async_op=True, timeout=0.2)
        for _ in range(2):
            with pytest.raises(collx.TimeoutError):
                work.wait()
        assert work.done()
        assert "failed" in repr(work)
        with pytest.raises(collx.ClosedError, match="TimeoutError"):
            comm.barrier()
    else:
        with pytest.raises(collx.CollxError, match=r"waited 0.2 s|TimeoutError"):  # it is told why rank 0 gave up
            comm.recv(np.zeros(1), 0)


def an_op_that_raises(comm: Communicator) -> None:
    def raising(a: Array, b: Array) -> Array:
        if comm.rank == 0:
            raise KeyError("of the op")
        return a + b

    work = comm.all_reduce(np.ones(3), ReduceOp.custom(raising), async_op=True)
    if comm.rank == 0:
        for _ in range(2):
            with pytest.raises(KeyError, match="of the op"):
                work.wait()
        with pytest.raises(collx.ClosedError, match="of the op"):
            comm.barrier()
    else:
        with pytest.raises(collx.CollxError, match="rank 0"):  # at the latest
            comm.barrier()


def in_order(comm: Communicator) -> None:
    lengths = np.random.default_rng(3).integers(0, 100_000, 40)
    works = [comm.all_reduce(np.ones(length), async_op=True) for length in lengths]
    while not works[-1].done():
        ended = [work.done() for work in reversed(works)][::-1]  # the last asked first: none can end in between
        assert ended == sorted(ended, reverse=True)
    assert all(work.done() for work in works)
    for length, work in zip(lengths, works, strict=True):
        same(work.wait(), np.full(length, float(comm.size)))


def while_computing(comm: Communicator) -> tuple[float, float]:
    """How long a call takes beside a computation that uses every core, and how long its wait then takes, by the time
    that it takes alone."""
    x, out, numbers = np.ones(1 << 24, np.float32), np.empty(1 << 24, np.float32), np.ones(1 << 16)
    taken, waited = [], []
    comm.all_reduce(x, out=out)
    for _ in range(5):
        comm.barrier()
        begun = time.perf_counter()
        comm.all_reduce(x, out=out)
        alone = time.perf_counter() - begun
        comm.barrier()
        begun = time.perf_counter()
        work = comm.all_reduce(x, out=out, async_op=True)
        while not work.done():
            np.add(numbers, 1, out=numbers)
        ended = time.perf_counter()
        assert work.wait() is out
        taken.append((ended - begun) / alone)
        waited.append((time.perf_counter() - ended) / alone)
        same(out[::4099], np.full(out[::4099].size, float(comm.size), np.float32))
    return min(taken), min(waited)


def test_it_goes_on_while_its_rank_computes() -> None:
    for taken, waited in ranks("shm", 2, while_computing):
        assert taken < 15  # 2 on cores that are shared with the computation, 40 where it waits for its time slices
        assert waited < 0.05


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_many_in_flight(kind: str, size: int) -> None:
    ranks(kind, size, many_in_flight)
    ranks(kind, size, in_order)
    ranks(kind, size, every_collective)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_dropped_work_completes(kind: str, size: int) -> None:
    ranks(kind, size, dropped)
    ranks(kind, size, memory_is_given_up)


@pytest.mark.parametrize("size", [1, 2])
def test_awaiting_does_not_block_the_loop(kind: str, size: int) -> None:
    ranks(kind, size, awaited)


def test_waiting_has_its_own_timeout(kind: str) -> None:
    ranks(kind, 2, waiting_has_its_own_timeout)


def test_errors_come_at_wait(kind: str) -> None:
    ranks(kind, 2, errors_come_at_wait)
    ranks(kind, 2, an_op_that_raises)
