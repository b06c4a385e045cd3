"""Persistent handles."""

from __future__ import annotations

import numpy as np
import pytest

from collx import Communicator
from tests.collectives.numbers import same
from tests.ranks import ranks


def run_again(comm: Communicator) -> None:
    size, rank = comm.size, comm.rank
    x, out = np.empty(5000), np.empty(5000)
    again = comm.plan("all_reduce", x, "max", out=out)
    assert again.result is out
    for turn in range(5):
        x[...] = turn * size + rank
        assert again() is out
        same(out, np.full(5000, turn * size + size - 1.0))
    x[...] = rank
    work = again(async_op=True)
    assert work.wait() is out
    assert out[0] == size - 1
    made = comm.plan("all_gather", np.array([rank]))
    assert made() is made() is made.result
    same(made.result, np.arange(size))


def every_collective(comm: Communicator) -> None:
    size, rank = comm.size, comm.rank
    x, y = np.zeros(size), np.zeros(2)
    strided = np.zeros((size, 2))[:, 0]
    swapped = np.zeros(size)
    first, alike = np.arange(size), np.ones(size, np.int64)
    plans = {
        "reduce_scatter": comm.plan("reduce_scatter", x),
        "all_to_all": comm.plan("all_to_all", swapped, out=swapped),
        "broadcast": comm.plan("broadcast", y, size - 1),
        "reduce": comm.plan("reduce", strided, root=size - 1),
        "gather": comm.plan("gather", y, 0),
        "scatter": comm.plan("scatter", first if rank == 0 else alike),
        "scan": comm.plan("scan", x),
        "exscan": comm.plan("exscan", x, out=x),
        "barrier": comm.plan("barrier"),
    }
    for turn in range(3):
        for plan in plans.values():
            x[...], y[...], strided[...] = turn + rank, rank, turn
            swapped[...] = np.arange(size) * 10 + rank
            plan()
        x[...] = turn + rank
        same(plans["reduce_scatter"](), np.full(1, float(sum(turn + r for r in range(size)))))
        same(plans["broadcast"](), np.full(2, size - 1.0))
        swapped[...] = np.arange(size) * 10 + rank
        same(plans["all_to_all"](), np.arange(size) + 10.0 * rank)
        strided[...] = turn  # what was copied is copied again
        reduced = plans["reduce"]()
        assert (reduced is None) == (rank != size - 1)
        if reduced is not None:
            same(reduced, np.full(size, float(turn * size)))
        same(plans["scatter"](), np.array([rank]))
        same(plans["scan"](), np.full(size, float(sum(turn + r for r in range(rank + 1)))))
        assert plans["exscan"]() is x
        same(x, np.full(size, float(sum(turn + r for r in range(rank)))))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_plan_runs_again_on_the_same_memory(kind: str, size: int) -> None:
    ranks(kind, size, run_again)
    ranks(kind, size, every_collective)


def wrong_plans(comm: Communicator) -> None:
    with pytest.raises(ValueError, match="did you mean all_reduce"):
        comm.plan("allreduce", np.ones(3))
    with pytest.raises(TypeError):
        comm.plan("all_reduce")
    with pytest.raises(TypeError):
        comm.plan("all_reduce", np.ones(3), nonsense=1)
    with pytest.raises(ValueError, match="too short"):
        comm.plan("all_reduce", np.ones(3), out=np.ones(2))
    with pytest.raises(ValueError, match="has no algorithm"):
        comm.plan("all_reduce", np.ones(3), algorithm="rung")
    comm.barrier()


def test_wrong_plans_are_refused_when_made(kind: str) -> None:
    ranks(kind, 2, wrong_plans)
