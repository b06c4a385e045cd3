"""Calls on the stand-in by the algorithm that they name: planned for all ranks, run by the engine, as on the CPU."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from collx import Communicator
from collx.schedule import REGISTER, Recv, Schedule, Send
from collx.transports.cuda import driver as interface
from collx.transports.cuda.slab import Layout
from tests.cuda import arrays
from tests.cuda import library as library
from tests.cuda.arrays import FakeArray
from tests.cuda.standin import StandIn
from tests.ranks import on_threads
from tests.schedules.cases import KEYS

RANKS = 3


@pytest.fixture(autouse=True)
def cuda() -> Iterator[StandIn]:
    standin = StandIn().install()
    yield standin
    standin.end()
    interface.use(None)


def there(x: Any) -> FakeArray:
    driver: Any = interface.driver()
    return arrays.array(driver, x)


def given(collective: str, rank: int) -> Any:
    count = 40 if collective in ("all_gather", "gather") else 6 * RANKS
    return np.random.default_rng(rank).integers(0, 9, count).astype(np.float32)


def test_every_algorithm_gives_what_it_gives_on_the_cpu() -> None:
    cases = [key for key in KEYS if key[0] != "barrier" and REGISTER[key].sizes(RANKS)]

    def body(comm: Communicator) -> None:
        for collective, name in cases:
            x, call = given(collective, comm.rank), getattr(comm, collective)
            right, found = call(x.copy(), algorithm=name), call(there(x), algorithm=name)
            if right is not None:
                np.testing.assert_array_equal(found.numpy(), right, f"{collective}:{name}")

    on_threads(body, RANKS)


def mine(rank: int, size: int) -> Schedule:
    """Up a chain and down again."""
    schedule = Schedule(1)
    if rank > 0:
        schedule.round(Recv(0, source=rank - 1, reduce="left"))
    if rank < size - 1:
        schedule.round(Send(0, to=rank + 1)).round(Recv(0, source=rank + 1))
    return schedule.round(Send(0, to=rank - 1)) if rank > 0 else schedule


def test_what_ranks_do_with_their_memory_is_their_own_matter() -> None:
    """A schedule of the user's own, in place; then some ranks in place and others not."""

    def body(comm: Communicator) -> None:
        x = there([1.0, comm.rank])
        assert comm.all_reduce(x, out=x, algorithm=mine) is x
        assert x.numpy().tolist() == [3, 3]
        for name in ("direct", "recursive_doubling", None):
            x, out = there([1.0, comm.rank]), there([0.0, 0.0])
            found = comm.all_reduce(x, out=x if comm.rank == 1 else out, algorithm=name)
            assert found.numpy().tolist() == [3, 3]

    on_threads(body, RANKS)


def test_what_cannot_serve_is_refused_and_harms_nothing() -> None:
    wrong: tuple[Any, ...] = ("nosuch", "mpi", 5, [])

    def body(comm: Communicator) -> None:
        for name in wrong:
            with pytest.raises((ValueError, TypeError)):
                comm.all_reduce(there([1.0]), algorithm=name)
        assert comm.all_reduce(there([1.0])).numpy().tolist() == [RANKS]
        for name in ("nccl", "swing"):
            with pytest.raises(ValueError, match="cannot use"):
                comm.all_reduce(there([1.0]), algorithm=name)
        assert comm.all_reduce(there([1.0])).numpy().tolist() == [RANKS]

    on_threads(body, RANKS)


def test_what_is_more_than_a_workspace_holds_goes_by_the_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collx.cuda.joining.Layout", functools.partial(Layout, room=4096, stage=4096))

    def body(comm: Communicator) -> None:
        x = there(np.full(5000, comm.rank, np.float32))
        comm.exscan(x, out=x)
        assert comm.rank == 0 or (x.numpy() == sum(range(comm.rank))).all()

    on_threads(body, RANKS)
