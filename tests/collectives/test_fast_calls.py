"""Calls like one that came before take a short way. They must be refused, or not, and end as if there were none."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import collx
from collx import Communicator, ReduceOp
from tests.collectives.numbers import same
from tests.collectives.repeated import CALLS, Named, rows
from tests.ranks import ranks


def alike(comm: Communicator) -> None:
    size, rank = comm.size, comm.rank
    for name, call in CALLS.items():
        for turn in range(4):
            given = np.arange(size * 3.0).reshape(size, 3) + 10 * rank + 100 * turn
            kept = given.copy()
            fresh = call(comm, given)
            out = np.full((rows(name, comm), 3), -1.0)
            assert call(comm, given, out=out) is (None if fresh is None else out)
            timed = call(comm, given, timeout=30.0)
            works = [call(comm, given, async_op=True) for _ in range(2)]
            long = call(comm, given.view(Named))
            same(given, kept)
            if long is not None:
                assert not np.shares_memory(fresh, given)
                for short in (fresh, out, timed, *(work.wait() for work in works)):
                    same(short, long)
    for turn in range(4):
        x = np.full(5, turn + 10.0 * rank)
        assert comm.broadcast(x, size - 1) is x
        same(x, np.full(5, turn + 10.0 * (size - 1)))
        assert comm.all_reduce(x, out=x) is x
        same(x, np.full(5, size * (turn + 10.0 * (size - 1))))
        assert comm.barrier() is None


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_same_results_every_time(kind: str, size: int) -> None:
    ranks(kind, size, alike) if size > 1 else ranks(kind, 1, alone)


def alone(comm: Communicator) -> None:
    for turn in range(3):
        x = np.full((2, 2), float(turn))
        for call in (comm.all_reduce, comm.reduce_scatter, comm.all_gather, comm.all_to_all, comm.scan, comm.gather):
            same(call(x), x)


def in_place(comm: Communicator) -> None:
    size, rank = comm.size, comm.rank
    for turn in range(3):
        whole = np.zeros(2 * size)
        mine = whole[2 * rank : 2 * rank + 2]
        mine[...] = rank + turn
        assert comm.all_gather(mine, out=whole) is whole
        same(whole, np.repeat(np.arange(size) + float(turn), 2))
        x = np.full(2 * size, float(turn))
        part = x[2 * rank : 2 * rank + 2]
        assert comm.reduce_scatter(x, out=part) is part
        same(part, np.full(2, float(turn * size)))
        swapped = np.arange(size) + 10 * rank
        comm.all_to_all(swapped, out=np.empty_like(swapped))
        assert comm.all_to_all(swapped, out=swapped) is swapped  # its input has to be copied first
        same(swapped, np.arange(size) * 10 + rank)


def test_working_in_place(kind: str) -> None:
    ranks(kind, 2, in_place)


def shapes(comm: Communicator) -> None:
    size = comm.size
    for _ in range(3):
        for shape in ((), (1,), (0,), (2, 0), (6,), (2, 3), (3, 2), (1,) * 9):
            same(comm.all_reduce(np.ones(shape)), np.full(shape, float(size)))
            same(comm.all_reduce(np.ones(shape), out=np.empty(shape)), np.full(shape, float(size)))
        one = np.empty(())
        assert comm.all_gather(np.ones(()))[0] == 1
        assert comm.reduce_scatter(np.ones(size), out=one) is one  # a 0-d out is as good as a row
        assert one == size
        x = np.ones(0)
        assert comm.all_reduce(x, out=x) is x


def test_zero_dimensions_and_zero_elements(kind: str) -> None:
    ranks(kind, 2, shapes)


def dtypes(comm: Communicator) -> None:
    size = comm.size
    for _ in range(3):
        for dtype in (np.float32, np.int32, np.uint32, np.complex64, np.longlong, np.int64, "<f4"):
            same(comm.all_reduce(np.ones(4, dtype)), np.ones(4, dtype) * np.dtype(dtype).type(size))
        with pytest.raises(TypeError, match="foreign byte order"):
            comm.all_reduce(np.ones(4, ">f4"))
        with pytest.raises(TypeError, match="foreign byte order"):
            comm.all_reduce(np.ones(4, np.float32), out=np.empty(4, ">f4"))
        with pytest.raises(TypeError, match="takes bool"):
            comm.all_reduce(np.ones(4, "datetime64[s]"))
        with pytest.raises(TypeError, match="not defined on"):
            comm.all_reduce(np.ones(4, np.complex64), "max")
        same(comm.all_reduce(np.ones(4, np.float32), "max"), np.ones(4, np.float32))


def test_an_array_of_another_dtype_is_another_call(kind: str) -> None:
    ranks(kind, 2, dtypes)


def refused(comm: Communicator) -> None:
    memory = np.ones(32)
    x, out = memory[:8], memory[16:24]
    for _ in range(3):
        comm.all_reduce(x, out=out)
        comm.all_reduce(x)
        comm.all_reduce(x, out=x)
        comm.broadcast(memory)
        with pytest.raises(ValueError, match="too short"):
            comm.all_reduce(x, out=out[:7])
        with pytest.raises(ValueError, match="wrong"):
            comm.all_reduce(x, out=out.reshape(2, 4))
        with pytest.raises(ValueError, match="overlap"):
            comm.all_reduce(x, out=memory[4:12])
        with pytest.raises(ValueError, match="overlap"):
            comm.all_reduce(memory[7:15], out=x)
        with pytest.raises(ValueError, match="overlap"):
            comm.all_reduce(memory[0:16:2], out=memory[8:16])
        with pytest.raises(BufferError, match="contiguous"):
            comm.all_reduce(x, out=memory[16:32:2])
        with pytest.raises(TypeError, match="dtype"):
            comm.all_reduce(x, out=out.view(np.int64))
        with pytest.raises(TypeError, match="list"):
            comm.all_reduce([1.0])
        with pytest.raises(TypeError, match="list"):
            comm.all_reduce(x, out=[1.0])
        with pytest.raises(TypeError, match="masked"):
            comm.all_reduce(np.ma.MaskedArray(x))
        same(comm.all_reduce(memory[0:16:2]), comm.all_reduce(memory[0:16:2].copy()))
        crooked = np.empty(65, np.uint8)[1:].view(np.float64)
        with pytest.raises(BufferError, match="aligned"):
            comm.all_reduce(x, out=crooked)
        frozen = np.ones(8)
        frozen.flags.writeable = False
        same(comm.all_reduce(frozen, "max"), frozen)  # to be read only
        with pytest.raises(BufferError, match="read-only"):
            comm.all_reduce(x, out=frozen)
        with pytest.raises(BufferError, match="read-only"):
            comm.all_reduce(frozen, out=frozen)
    x.flags.writeable = False
    with pytest.raises(BufferError, match="read-only"):
        comm.all_reduce(x, out=x)


def test_what_is_wrong_is_refused_after_a_call_that_was_right(kind: str) -> None:
    ranks(kind, 2, refused)


def arguments(comm: Communicator) -> None:
    x = np.full(4, 2.0)
    first = ReduceOp.custom(lambda a, b: a + b)
    second = ReduceOp.custom(lambda a, b: a * b)
    for _ in range(3):
        assert comm.all_reduce(x)[0] == 4
        assert comm.all_reduce(x, "".join(["s", "um"]))[0] == 4  # another object of the same name
        assert comm.all_reduce(x, "prod")[0] == 4
        assert comm.all_reduce(x, "max")[0] == 2
        assert comm.all_reduce(x, first)[0] == 4
        assert comm.all_reduce(x, second)[0] == 4
        assert comm.all_reduce(x + 1, second)[0] == 9
        for algorithm in (None, "ring", "direct"):
            assert comm.all_reduce(x, algorithm=algorithm)[0] == 4
        for root in (0, 1, np.int64(1)):
            assert comm.broadcast(np.full(3, float(comm.rank)), root)[0] == root  # type: ignore[arg-type]
        assert comm.reduce_scatter(x, counts=[1, 3]).size == (1, 3)[comm.rank]
        assert comm.reduce_scatter(x).size == 2
        assert comm.reduce_scatter(x, counts=(3, 1)).size == (3, 1)[comm.rank]
        counts: list[Any] = [2, 2]
        assert comm.reduce_scatter(x, counts=counts).size == 2
        for wrong_count, complaint in ((1, "add up"), (-2, "negative"), (2**70, "add up")):
            counts[1] = wrong_count  # the same object is another argument now
            with pytest.raises(ValueError, match=complaint):
                comm.reduce_scatter(x, counts=counts)
        for no_count in (2.0, True, None):
            counts[1] = no_count
            with pytest.raises(TypeError, match=r"counts\[1\]"):
                comm.reduce_scatter(x, counts=counts)
        with pytest.raises(ValueError, match="entries for 2 ranks"):
            comm.reduce_scatter(x, counts=[2, 2, 0])
        for wrong, error in (("nonsense", ValueError), (3, TypeError), ([], TypeError)):
            with pytest.raises(error):
                comm.all_reduce(x, wrong)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="algorithm"):
            comm.all_reduce(x, algorithm="rung")
        for bad_root, bad in ((2, ValueError), (True, TypeError), (1.0, TypeError)):
            with pytest.raises(bad):
                comm.broadcast(x, bad_root)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="timeout"):
            comm.all_reduce(x, timeout=-1)
        with pytest.raises(TypeError, match="timeout"):
            comm.barrier(timeout=True)


def test_other_arguments_are_another_call(kind: str) -> None:
    ranks(kind, 2, arguments)


def asynchronous(comm: Communicator) -> None:
    x, out = np.ones(3), np.empty(3)
    big = np.ones(200_000)
    again = comm.plan("all_reduce", x, out=out)
    for _ in range(3):
        comm.all_reduce(x, out=out)
        works = [comm.all_reduce(big, async_op=True) for _ in range(3)]
        same(comm.all_reduce(x, out=out), x * comm.size)
        assert all(work.done() for work in works)  # those that were started first come first
        works = [comm.all_reduce(big, async_op=True) for _ in range(3)]
        same(again(), x * comm.size)
        assert all(work.done() for work in works)
        work = comm.all_reduce(x, async_op=True)
        assert isinstance(work, collx.Work)
        same(work.wait(), x * comm.size)
        work = again(async_op=True)
        assert work.wait() is out


def test_it_queues_behind_what_was_started(kind: str) -> None:
    ranks(kind, 2, asynchronous)


def late(comm: Communicator) -> None:
    x = np.ones(3)
    again = comm.plan("all_reduce", x)
    for _ in range(3):
        comm.all_reduce(x)
        again()
    with pytest.raises(ValueError, match="positive"):
        comm.timeout = 0
    comm.timeout = 0.2
    assert comm.timeout == 0.2
    if comm.rank == 0:
        with pytest.raises(collx.TimeoutError, match=r"all_reduce.* #7 waited 0\.2 s"):
            comm.all_reduce(x)
        for call in (lambda: comm.all_reduce(x), again, comm.barrier):
            with pytest.raises(collx.ClosedError, match=r"all_reduce #7 failed with TimeoutError"):
                call()
    else:
        with pytest.raises(collx.CollxError):
            comm.recv(np.ones(3), 0, timeout=30)


def test_a_failure_breaks_the_communicator(kind: str) -> None:
    ranks(kind, 2, late)


def twice(call: Callable[[], object]) -> None:
    """A rank that has all it needs may notice at its next call only."""
    call()
    call()


def different(comm: Communicator) -> None:
    x = np.ones(3)
    comm.all_reduce(x)
    comm.all_gather(x)
    call = comm.all_reduce if comm.rank == 0 else comm.all_gather
    with pytest.raises(collx.MismatchError):
        twice(lambda: call(x))
    with pytest.raises(collx.ClosedError):
        comm.all_reduce(x)


def test_calls_that_differ_are_seen(kind: str) -> None:
    ranks(kind, 2, different)


def raising(comm: Communicator) -> None:
    armed = False

    def op(a: Any, b: Any) -> Any:
        if armed:
            raise KeyError("from the op")
        return a + b

    custom = ReduceOp.custom(op)
    for _ in range(3):
        comm.all_reduce(np.ones(2), custom, algorithm="direct")
    if comm.rank == 1:
        with contextlib.suppress(collx.CollxError):
            comm.all_reduce(np.ones(2), custom, algorithm="direct")
        return
    armed = True
    with pytest.raises(KeyError, match="from the op"):
        comm.all_reduce(np.ones(2), custom, algorithm="direct")
    with pytest.raises(collx.ClosedError, match="KeyError"):
        comm.all_reduce(np.ones(2), custom, algorithm="direct")


def test_what_an_op_raises_comes_through(kind: str) -> None:
    ranks(kind, 2, raising)


def closing(comm: Communicator) -> None:
    x, out = np.ones(3), np.empty(3)
    again = comm.plan("all_reduce", x, out=out)
    for _ in range(3):
        comm.all_reduce(x, out=out)
        again()
    comm.close()
    refused: tuple[Callable[[], Any], ...] = (lambda: comm.all_reduce(x, out=out), again)
    for call in refused:
        with pytest.raises(collx.ClosedError, match="closed"):
            call()


@pytest.mark.parametrize("size", [1, 2])
def test_it_is_closed_after_closing(kind: str, size: int) -> None:
    ranks(kind, size, closing)


def forked(comm: Communicator) -> None:
    x, out = np.ones(3), np.empty(3)
    again = comm.plan("all_reduce", x, out=out)
    for _ in range(3):
        comm.all_reduce(x, out=out)
        again()
    reading, writing = os.pipe()
    if os.fork() == 0:
        told = []
        for call in (lambda: comm.all_reduce(x, out=out), again, comm.barrier):
            try:
                call()
            except BaseException as error:
                told.append(type(error).__name__)
        os.write(writing, " ".join(told).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, closefd=True) as pipe:
        assert pipe.read() == "ClosedError ClosedError ClosedError"
    os.wait()
    same(comm.all_reduce(x, out=out), x * comm.size)


def test_a_forked_child_is_refused() -> None:
    ranks("shm", 2, forked)


def shared(comm: Communicator) -> None:
    x, out = comm.empty(4, np.float64), comm.empty(4, np.float64)
    for turn in range(3):
        x[...] = turn
        assert comm.all_reduce(x, out=out) is out
        assert (out == turn * comm.size).all()
        same(comm.all_reduce(x), np.full(4, float(turn * comm.size)))
        assert comm.broadcast(x) is x


def test_arrays_of_empty(kind: str) -> None:
    ranks(kind, 2, shared)
