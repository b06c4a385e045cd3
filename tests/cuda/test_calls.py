"""Calls on GPU arrays as a communicator takes them; what runs them is another matter."""

from __future__ import annotations

import functools
import gc
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import collx
from collx import Communicator
from collx.cuda import parcels
from collx.engine import Engine
from collx.planner import make_plan
from collx.request import Request
from collx.transports.cuda import driver as interface
from collx.types import Where
from tests.collectives.numbers import matrix_product
from tests.cuda import arrays
from tests.cuda import library as library
from tests.cuda.arrays import FakeArray
from tests.cuda.standin import StandIn
from tests.ranks import on_threads


class OnHost:
    """An engine of the host for memory of GPUs, which the stand-in's can be."""

    def __init__(self, engine: Engine, rank: int, size: int, *_: Any) -> None:
        self.engine, self.rank, self.size = engine, rank, size
        self.calls: list[Where] = []
        self.ended: list[str] = []

    def _prepared(self, request: Request, where: Where) -> Any:
        cuda: Any = interface.driver()
        cuda.synchronize(where.stream)
        self.calls.append(where)
        self.engine.sequence += 1
        plan, op = make_plan(request, self.rank, self.size, self.engine.capacity, self.engine.window)
        return self.engine.prepare(plan, op)

    def join(self, where: Where, limit: float) -> None: ...
    def check(self, request: Request, where: Where) -> None: ...

    def run(self, request: Request, source: int, target: int, where: Where, limit: float, keep: object) -> None:
        self.engine.run(self._prepared(request, where), source, target, self.engine.sequence, limit)

    def start(
        self, request: Request, source: int, target: int, where: Where, limit: float, stream: Any, keep: object
    ) -> Any:
        return self.engine.start(self._prepared(request, where), source, target, self.engine.sequence, limit)

    def fail(self, reason: str) -> None:
        self.ended.append(reason)
        self.engine.fail(reason)

    def revoke(self) -> None:
        self.ended.append("revoked")

    def close(self) -> None:
        self.ended.append("closed")
        self.engine.close()


@pytest.fixture(autouse=True)
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    standin = StandIn().install()
    engine: Any = types.ModuleType("collx.cuda.engine")
    engine.CudaEngine = OnHost
    monkeypatch.setitem(sys.modules, "collx.cuda.engine", engine)
    yield standin
    standin.end()
    interface.use(None)


def there(x: Any) -> FakeArray:
    cuda: Any = interface.driver()
    return arrays.array(cuda, x)


def engine_of(comm: Any) -> OnHost:
    found: OnHost = comm._gpus
    return found


CALLS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "all_reduce": ((3, 2), {"op": "max"}),
    "reduce_scatter": ((4, 2), {"counts": [1, 3]}),
    "all_gather": ((2, 2), {}),
    "all_to_all": ((4,), {}),
    "broadcast": ((3,), {"root": 1}),
    "reduce": ((3,), {"root": 1}),
    "gather": ((3,), {"root": 1}),
    "scatter": ((4,), {"root": 1}),
    "scan": ((3,), {"op": "prod"}),
    "exscan": ((3,), {"op": "min"}),
}


@pytest.mark.parametrize("collective", CALLS)
def test_results_are_as_on_the_cpu(collective: str) -> None:
    shape, options = CALLS[collective]

    def body(comm: Communicator) -> None:
        x = np.random.default_rng(comm.rank).integers(0, 9, shape).astype(np.float32)
        for call in (
            getattr(comm, collective),
            functools.partial(_planned, comm, collective),
            _later(comm, collective),
        ):
            right, found = call(x.copy(), **options), call(there(x), **options)
            assert (found is None) == (right is None)
            if right is not None:
                np.testing.assert_array_equal(found.numpy(), right)

    on_threads(body, 2)


def _planned(comm: Communicator, collective: str, x: Any, **options: Any) -> Any:
    handle = comm.plan(collective, x, **options)
    handle()
    return handle()


def _later(comm: Communicator, collective: str) -> Any:
    return lambda x, **options: getattr(comm, collective)(x, **options, async_op=True).wait()


def test_in_place_and_not_contiguous() -> None:
    def body(comm: Communicator) -> None:
        x = there([1.0, 2.0])
        assert comm.exscan(x, out=x) is x
        assert x.numpy().tolist() == [[0, 0], [1, 2]][comm.rank]
        halves = there(np.arange(8))[::2]
        assert comm.all_reduce(halves).numpy().tolist() == [0, 4, 8, 12]
        y = there(np.arange(4))
        assert comm.all_to_all(y, out=y).numpy().tolist() == [[0, 1, 0, 1], [2, 3, 2, 3]][comm.rank]
        matrix = there([[1, comm.rank], [1, 1]])
        assert comm.all_reduce(matrix, matrix_product()).numpy().tolist() == [[1, 1], [2, 2]]

    on_threads(body, 2)


def test_the_stream_is_the_one_of_the_moment(cuda: StandIn) -> None:
    def body(comm: Communicator) -> None:
        x, out = there(np.ones(2)), there(np.zeros(2))
        handle = comm.plan("all_reduce", x, out=out)
        first = arrays.current(cuda)
        handle()
        second = cuda.stream()
        arrays.use_stream(cuda, second)
        handle()
        assert engine_of(comm).calls == [Where(0, first), Where(0, second)]

    on_threads(body, 2)


def test_a_rank_that_calls_on_the_cpu_meanwhile() -> None:
    def body(comm: Communicator) -> None:
        x = np.ones(2)
        with pytest.raises(collx.MismatchError, match="the first call on GPUs"):
            comm.all_reduce(there(x) if comm.rank else x)

    on_threads(body, 2)


def test_an_error_ends_both_engines() -> None:
    def body(comm: Communicator) -> None:
        comm.all_reduce(there(np.ones(2)))
        with pytest.raises(collx.CollxError):
            comm.all_reduce(there(np.ones(2 + comm.rank)))
        assert len(engine_of(comm).ended) == 1
        with pytest.raises(collx.ClosedError, match="all_reduce on GPUs failed with"):
            comm.all_reduce(np.ones(2))

    on_threads(body, 2)


def test_an_error_on_the_cpu_ends_both_engines() -> None:
    def body(comm: Communicator) -> None:
        comm.all_reduce(there(np.ones(2)))
        with pytest.raises(collx.CollxError):
            comm.all_reduce(np.ones(2 + comm.rank))
        assert len(engine_of(comm).ended) == 1

    on_threads(body, 2)


def test_leaving_and_revoking() -> None:
    def body(comm: Communicator) -> None:
        part = comm.split(0)
        assert part is not None
        with part:
            part.all_reduce(there(np.ones(2)))
            engine = engine_of(part)
        assert engine.ended == ["closed"]
        comm.all_reduce(there(np.ones(2)))
        comm.revoke()
        assert engine_of(comm).ended == ["revoked"]

    on_threads(body, 2)


def test_wrong_arguments_harm_nothing(cuda: StandIn) -> None:
    def body(comm: Communicator) -> None:
        x = there(np.ones(2))
        for _ in range(3):  # what is known of a call is not so of another
            comm.all_reduce(np.ones(2), out=np.ones(2))
        with pytest.raises(TypeError, match="x lies on GPU 0, but out on the CPU"):
            comm.all_reduce(x, out=np.ones(2))
        with pytest.raises(TypeError, match="x lies on the CPU, but out on GPU 0"):
            comm.all_reduce(np.ones(2), out=x)
        with pytest.raises(TypeError, match="max is not defined on complex"):
            comm.all_reduce(there(np.ones(2, np.complex64)), "max")
        assert comm.all_reduce(x).numpy().tolist() == [2, 2]

    on_threads(body, 2)


# -- messages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 5, 100_000])
@pytest.mark.parametrize("async_op", [False, True])
def test_messages(count: int, async_op: bool) -> None:
    def body(comm: Communicator) -> None:
        peer = 1 - comm.rank
        x = there(np.arange(2.0 * count)[::-1] + comm.rank)
        out = there(np.zeros(count))
        sending = comm.send(x[::2], peer, async_op=True)
        received = comm.recv(out, peer, async_op=async_op)
        assert (received.wait() if async_op else received) is out
        assert sending is not None
        sending.wait()
        np.testing.assert_array_equal(out.numpy(), np.arange(2.0 * count)[::-1][::2] + peer)

    on_threads(body, 2)


def test_swaps_and_messages_to_oneself() -> None:
    def body(comm: Communicator) -> None:
        peer = 1 - comm.rank
        x = there([comm.rank, 7])
        assert comm.sendrecv(x, peer, x, peer) is x
        assert x.numpy().tolist() == [peer, 7]
        out = there([0, 0])
        comm.sendrecv(x, peer, out, peer, async_op=True).wait()
        assert out.numpy().tolist() == [comm.rank, 7]
        comm.send(x, comm.rank)
        assert comm.recv(out, comm.rank).numpy().tolist() == [peer, 7]
        with pytest.raises(ValueError, match="has sent itself nothing"):
            comm.recv(out, comm.rank)
        with pytest.raises(TypeError, match="the same device"):
            comm.sendrecv(x, peer, np.zeros(2), peer)
        with pytest.raises(ValueError, match="x and out overlap"):
            comm.sendrecv(x[:1], peer, x, peer)

    on_threads(body, 2)


def test_a_dropped_receive_is_delivered() -> None:
    def body(comm: Communicator) -> None:
        if comm.rank == 0:
            comm.send(there([3, 4]), 1)
            comm.barrier()
            return
        out = there([0, 0])
        comm.recv(out, 0, async_op=True)
        comm.barrier()
        comm.close()
        assert out.numpy().tolist() == [3, 4]

    on_threads(body, 2)


def test_a_message_without_a_driver_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is printed of what was not even made."""

    def none() -> Any:
        raise collx.TransportError("no NVIDIA driver")

    x, noise = there(np.ones(3)), list[Any]()
    monkeypatch.setattr(parcels, "driver", none)
    monkeypatch.setattr(sys, "unraisablehook", noise.append)
    with pytest.raises(collx.TransportError, match="no NVIDIA driver") as raised, collx.init() as comm:
        comm.send(x, 0)
    del raised
    gc.collect()
    assert not noise
