"""Every collective, op and dtype gives what NumPy gives, for 1 to 8 ranks."""

from __future__ import annotations

import numpy as np
import pytest

from collx import Communicator
from collx.types import DTYPES, identity, reduce_op
from tests.collectives.numbers import PAIRS, contribution, fold, same
from tests.ranks import SIZES, ranks

SHAPE = (3, 5)


def reductions(comm: Communicator, step: int) -> None:
    for seed, (dtype, op) in list(enumerate(PAIRS))[comm.size % step :: step]:
        rows = (3 * comm.size, 5) if seed % 2 else (comm.size,)
        given = [contribution(rank, rows, dtype, seed, lowest=op == "prod") for rank in range(comm.size)]
        x, before = given[comm.rank], given[comm.rank].copy()
        total = fold(given, op)
        root = seed % comm.size
        same(comm.all_reduce(x, op), total)
        share = len(total) // comm.size
        same(comm.reduce_scatter(x, op), total[comm.rank * share : (comm.rank + 1) * share])
        reduced = comm.reduce(x, op, root)
        if comm.rank == root:
            same(reduced, total)
        else:
            assert reduced is None
        if op != "avg":
            same(comm.scan(x, op), fold(given[: comm.rank + 1], op))
            nothing = np.full(rows, identity(reduce_op(op), dtype), dtype)
            same(comm.exscan(x, op), fold(given[: comm.rank], op) if comm.rank else nothing)
        same(x, before)


def movements(comm: Communicator) -> None:
    for seed, dtype in enumerate(DTYPES):
        root = seed % comm.size
        given = [contribution(rank, SHAPE, dtype, seed) for rank in range(comm.size)]
        x = given[comm.rank]
        same(comm.all_gather(x), np.concatenate(given))
        gathered = comm.gather(x, root)
        if comm.rank == root:
            same(gathered, np.concatenate(given))
        else:
            assert gathered is None
        same(comm.scatter(np.concatenate(given), root), x)
        y = x.copy()
        assert comm.broadcast(y, root) is y
        same(y, given[root])
        parts = [[contribution(i * 8 + j, SHAPE, dtype, seed) for j in range(comm.size)] for i in range(comm.size)]
        mine = np.concatenate(parts[comm.rank])
        same(comm.all_to_all(mine), np.concatenate([parts[i][comm.rank] for i in range(comm.size)]))
        same(mine, np.concatenate(parts[comm.rank]))
    assert comm.barrier() is None


@pytest.mark.parametrize("size", SIZES)
def test_reductions(kind: str, size: int) -> None:
    ranks(kind, size, reductions, 3 if size > 3 else 1)  # sizes 4, 5 and 6 share all pairs


@pytest.mark.parametrize("size", SIZES)
def test_movements(kind: str, size: int) -> None:
    ranks(kind, size, movements)


def extremes(comm: Communicator) -> None:
    x = np.array([np.nan, 1.0, -0.0]) if comm.rank == 0 else np.array([5.0, np.inf, 0.0])
    for op in ("min", "max"):
        assert np.isnan(comm.all_reduce(x, op)[0])
    assert comm.all_reduce(x, "max")[1] == np.inf
    wide = np.array([2**62, -1], np.int64)
    same(comm.all_reduce(wide), np.array([-(2**63), -2], np.int64))  # wraps around, as NumPy does
    flags = np.array([0.0, -0.5, 7.0]) * (comm.rank + 1)
    same(comm.all_reduce(flags, "land"), np.array([0.0, 1.0, 1.0]))


def test_nan_overflow_and_truth_are_as_in_numpy(kind: str) -> None:
    ranks(kind, 2, extremes)
