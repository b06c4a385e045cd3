"""Calls like one that came before take a short way. They must be refused, or not, and end as if there were none."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
import tracemalloc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import collx
from collx import Communicator, ReduceOp, calls
from collx.engine import Engine
from tests.collectives.numbers import same
from tests.harness import native_engines
from tests.ranks import ranks

# Collective -> a call of it with out=, for arrays of `size` rows on each rank and out as the result needs it.
CALLS: dict[str, Callable[..., Any]] = {
    "all_reduce": lambda comm, x, **more: comm.all_reduce(x, **more),
    "reduce_scatter": lambda comm, x, **more: comm.reduce_scatter(x, **more),
    "all_gather": lambda comm, x, **more: comm.all_gather(x, **more),
    "all_to_all": lambda comm, x, **more: comm.all_to_all(x, **more),
    "reduce": lambda comm, x, **more: comm.reduce(x, root=1, **more),
    "gather": lambda comm, x, **more: comm.gather(x, 1, **more),
    "scatter": lambda comm, x, **more: comm.scatter(x, 1, **more),
    "scan": lambda comm, x, **more: comm.scan(x, **more),
    "exscan": lambda comm, x, **more: comm.exscan(x, **more),
}


def rows(name: str, comm: Communicator) -> int:
    """Rows of the result, of `size` rows given."""
    return {"all_gather": comm.size**2, "gather": comm.size**2, "reduce_scatter": 1, "scatter": 1}.get(name, comm.size)


class Named(np.ndarray[Any, Any]):
    """A subclass, which goes the long way."""


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


def short(comm: Communicator) -> None:
    """What goes the short way the second time: else a small call costs ten times as much."""
    size, mine = comm.size, comm.empty(64, np.int32)
    x, y, counts = np.ones(size), np.ones(size), [1] * size
    frozen = np.ones(3)
    frozen.flags.writeable = False
    times: tuple[Any, ...] = (None, 5, 5.0, np.inf)

    def alike_calls(async_op: bool) -> None:
        def call(method: Callable[..., Any], *given: Any, **more: Any) -> None:
            result = method(*given, **more, async_op=async_op)
            if async_op:
                result.wait()

        for name, method in CALLS.items():
            call(method, comm, x)
            call(method, comm, x, out=np.empty(rows(name, comm)))
        for timeout in times:
            call(comm.all_reduce, x, out=x, timeout=timeout)
        for parts in (counts, tuple(counts), list(counts)):
            call(comm.reduce_scatter, x, counts=parts)
            call(comm.all_gather, x[:1], counts=parts)
            call(comm.gather, x[:1], 1, counts=parts)
            call(comm.scatter, x, 1, counts=parts)
            call(comm.all_to_all, x, send_counts=parts, recv_counts=list(parts))
        call(comm.all_to_all, y, out=y)
        call(comm.exscan, y, out=y)
        call(comm.broadcast, frozen if comm.rank == 0 else frozen.copy())
        call(comm.all_reduce, mine)
        call(comm.all_reduce, mine, out=comm.empty(64, np.int32))
        call(comm.all_reduce, mine[8:16], out=mine[32:40])
        call(comm.broadcast, mine[3:5])

    def refused(*given: Any, **more: Any) -> Any:
        raise AssertionError("the long way")

    alike_calls(False)
    comm._do = refused  # type: ignore[method-assign]
    alike_calls(False)
    alike_calls(True)


def test_calls_that_are_known_take_the_short_way() -> None:
    ranks("shm", 2, short)


def tensors(comm: Communicator) -> None:
    """The short way for those that have it; what it cannot read right goes the long one."""
    torch: Any = importlib.import_module("torch")

    def calls_of(dtype: Any) -> None:
        x, parts = torch.ones(4, 3, dtype=dtype), torch.empty(8, 3, dtype=dtype)
        assert comm.all_reduce(x, out=x) is x
        assert x.tolist() == [[2] * 3] * 4
        x += comm.rank
        assert comm.all_gather(x, out=parts) is parts
        assert parts.tolist() == [[2] * 3] * 4 + [[3] * 3] * 4
        assert comm.all_gather(x, out=parts, async_op=True).wait() is parts
        assert comm.broadcast(torch.nn.Parameter(x, requires_grad=dtype.is_floating_point), 1).tolist() == [[3] * 3] * 4
        assert comm.all_to_all(x.flatten(), out=parts[:4].view(-1)).tolist() == [3] * 12

    for _ in range(2):
        for dtype in (torch.float32, torch.bfloat16, torch.int64):
            calls_of(dtype)
        z = torch.tensor([1 + 2j, 3 + 4j])
        for x in (torch.ones(2), torch.ones(2).to_sparse(), torch._neg_view(torch.ones(2)), z.conj().imag[:1]):
            with contextlib.suppress(RuntimeError, TypeError):
                right = x.to_dense() * 2 if x.is_sparse else (x + 0) * 2
                assert comm.all_reduce(x, out=torch.empty(right.shape)).tolist() == right.tolist()
        assert comm.all_reduce(torch.ones(2, 4).t(), out=torch.empty(4, 2)).tolist() == [[2, 2]] * 4
        total = comm.all_reduce(np.ones(3, np.float32), out=torch.empty(3))
        assert total.tolist() == [2, 2, 2]

    def refused(*given: Any, **more: Any) -> Any:
        raise AssertionError("the long way")

    comm._do = refused  # type: ignore[method-assign]
    calls_of(torch.bfloat16)


def test_tensors_that_are_known_take_the_short_way() -> None:
    ranks("shm", 2, tensors)


def in_flight(comm: Communicator) -> None:
    """Calls that read a copy of their input each have their own."""
    size, rank = comm.size, comm.rank
    for _ in range(3):
        arrays = [np.arange(size * 1000.0) + 10 * turn + rank for turn in range(6)]
        wanted = [comm.all_to_all(x) for x in arrays]
        works = [comm.all_to_all(x, out=x, async_op=True) for x in arrays]
        for x, work, right in zip(arrays, works, wanted, strict=True):
            assert work.wait() is x
            same(x, right)
        arrays = [np.arange(1000.0) + 10 * turn + rank for turn in range(6)]
        wanted = [comm.exscan(x) for x in arrays]
        works = [comm.exscan(x, out=x, async_op=True) for x in arrays]
        for x, work, right in zip(arrays, works, wanted, strict=True):
            assert work.wait() is x
            same(x, right)


def test_copies_of_calls_in_flight_are_their_own(kind: str) -> None:
    ranks(kind, 2, in_flight)


def alone_on_the_native_engine(body: Callable[[Communicator], None]) -> None:
    def no_group(*_: Any) -> Any:
        raise NotImplementedError

    with native_engines(1) as [engine]:
        comm = Communicator(engine, 0, 0, ("here",), 60.0, no_group)
        body(comm)
        comm.close()


def test_no_reference_is_lost() -> None:
    def body(comm: Communicator) -> None:
        x, out, op = np.ones(3), np.empty(3), ReduceOp.custom(lambda a, b: a)
        again = comm.plan("all_reduce", x, out=out)
        watched = (x, out, x.dtype, None, "sum", NotImplemented, op)

        def calls() -> None:
            comm.all_reduce(x)
            comm.all_reduce(x, out=out)
            comm.all_reduce(x, op, out=x)
            comm.reduce(x, root=0)
            comm.broadcast(x)
            comm.barrier()
            comm.all_reduce(x.view(Named))
            again()

        for _ in range(10):
            calls()
        gc.collect()  # or it comes in between, and frees what imports have left
        before = [sys.getrefcount(it) for it in watched]
        for _ in range(1000):
            calls()
        after = [sys.getrefcount(it) for it in watched]
        assert max(abs(b - a) for a, b in zip(before, after, strict=True)) < 100
        tracemalloc.start()
        calls()
        held = tracemalloc.get_traced_memory()[0]
        for _ in range(1000):
            calls()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - held < 10_000
        tracemalloc.stop()

    alone_on_the_native_engine(body)


def test_what_is_remembered_is_bounded_and_let_go() -> None:
    class Function:
        def __call__(self, a: Any, b: Any) -> Any:
            return a

    def body(comm: Communicator) -> None:
        for length in range(3000):
            comm.all_reduce(np.empty(length, np.int8))
        for length in range(3000):
            assert comm.all_reduce(np.empty(length, np.int8)).shape == (length,)
        function = Function()
        gone = weakref.ref(function)
        comm.all_reduce(np.ones(2), ReduceOp.custom(function))
        del function
        comm.close()
        gc.collect()
        assert gone() is None

    alone_on_the_native_engine(body)


def test_an_op_that_refers_to_the_communicator_keeps_nothing_alive() -> None:
    def no_group(*_: Any) -> Any:
        raise NotImplementedError

    with native_engines(1) as [engine]:
        comm = Communicator(engine, 0, 0, ("here",), 60.0, no_group)

        def algorithm(rank: int, size: int, held: object = comm) -> Any:
            raise NotImplementedError

        comm._known.remember(
            comm._prepared(calls.barrier(0, 1).request), None, ("x", None, None, algorithm), False, None
        )
        gone = weakref.ref(comm)
        del comm, algorithm
        gc.collect()
        assert gone() is None


def test_neither_plan_nor_handle_hides_a_cycle_from_the_collector() -> None:
    """A user's op may refer to the communicator whose plans refer to the op, and to handles of it."""

    def no_group(*_: Any) -> Any:
        raise NotImplementedError

    def cycle(engine: Engine) -> list[weakref.ref[Any]]:
        comm = Communicator(engine, 0, 0, ("here",), 60.0, no_group)
        held: list[Any] = [comm]
        op = ReduceOp.custom(lambda a, b: a + b if held else a)
        for _ in range(3):
            comm.all_reduce(np.ones(2), op)
        held.append(comm.plan("all_reduce", np.ones(2), op))
        held[1]()
        return [weakref.ref(comm), weakref.ref(op.function)]

    with native_engines(1) as [engine]:
        watched = cycle(engine)
        gc.collect()
        assert [gone() for gone in watched] == [None, None]
