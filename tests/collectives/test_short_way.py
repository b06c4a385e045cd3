"""Calls that came before take a short way in C++, which keeps what it must and lets go of the rest."""

from __future__ import annotations

import contextlib
import gc
import importlib
import sys
import tracemalloc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from collx import Communicator, ReduceOp, calls
from collx.engine import Engine
from tests.collectives.numbers import same
from tests.collectives.repeated import CALLS, Named, rows
from tests.harness import native_engines
from tests.ranks import ranks


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
