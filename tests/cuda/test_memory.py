"""Calls on GPUs where memory comes and goes, through a communicator, in every sync mode."""

from __future__ import annotations

import random

import collx
from collx.cuda.barriers import MODES
from collx.perf.gpu import synchronised
from tests.cuda import library as library
from tests.cuda.arrays import FakeArray, empty, placed
from tests.cuda.standin import StandIn

COUNT = 100


def _raw(gpu: StandIn) -> FakeArray:
    """An array with an allocation to itself."""
    return placed(gpu, gpu.allocate(4 * COUNT), COUNT)


def _comes_and_goes(comm: collx.Communicator) -> int:
    gpu = StandIn(mps=True, jitter=2e-4, seed=comm.rank).install()
    kept = random.Random(comm.rank)  # each rank frees at other times, so that bases differ and come back
    for mode in MODES:
        same = synchronised(comm, mode, lambda: empty(gpu, 1))
        for turn in range(5):
            x, out = _raw(gpu), _raw(gpu)
            x[...] = turn + comm.rank
            same.all_reduce(x, out=out)
            assert (out.numpy() == comm.size * turn + sum(range(comm.size))).all(), (mode, turn)
            for each in (x, out):
                if kept.random() < 0.7:
                    gpu.free(each.address)
        same.close()
    return gpu.mapped


def test_memory_that_comes_and_goes() -> None:
    assert collx.spawn(_comes_and_goes, 3) == [0, 0, 0]


def _frees_early(comm: collx.Communicator) -> str:
    gpu = StandIn(jitter=2e-4, seed=comm.rank).install()
    x, out = _raw(gpu), _raw(gpu)
    comm.all_reduce(x, out=out)
    if comm.rank == 1:
        gpu.synchronize(x.stream)
        gpu.free(x.address)
        try:
            comm.all_reduce(x, out=out)
        except TypeError as error:  # before anybody is asked to read it
            said = str(error)
            x = _raw(gpu)
    comm.all_reduce(x, out=out)
    out.numpy()
    return said if comm.rank == 1 else ""


def test_memory_freed_early_is_not_for_others_to_read() -> None:
    assert "no GPU of this process has memory" in collx.spawn(_frees_early, 3)[1]
