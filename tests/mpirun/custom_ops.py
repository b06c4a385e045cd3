"""Ops of one's own: one that commutes, one for which the order of ranks counts, and one that needs the whole array.

mpirun -n 4 python tests/mpirun/custom_ops.py --max-bytes 1M
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from collx import ReduceOp
from collx.types import Array
from harness import Case, Run, main


def saturating_sum(a: Array, b: Array) -> Array:
    return np.minimum(a.astype(np.uint16) + b, 255).astype(np.uint8)


def first_that_speaks(a: Array, b: Array) -> Array:
    """What the lowest rank says that says anything but 0."""
    return np.where(a != 0, a, b)


def one_after_the_other(a: Array, b: Array) -> Array:
    """Two permutations as one."""
    return b[a]


def given(op: ReduceOp, case: Case, count: int) -> list[Array]:
    """Every rank's array."""
    if op.function is one_after_the_other:
        return [case.random.permutation(count) for _ in case.ranks]
    return [
        case.random.integers(0, 100, count, np.uint8) * case.random.integers(0, 2, count, np.uint8) for _ in case.ranks
    ]


def reduced(op: ReduceOp, arrays: Sequence[Array]) -> Array:
    assert op.function is not None
    return functools.reduce(op.function, arrays) if arrays else np.zeros(0)


def check_op(run: Run, case: Case, op: ReduceOp) -> None:
    comm, rank, count = run.comm, case.rank, case.size * case.count
    arrays = given(op, case, count)
    everything = reduced(op, arrays)
    case.equal(comm.all_reduce(arrays[rank], op), everything, "all_reduce")
    case.equal(comm.reduce(arrays[rank], op, case.root), everything if rank == case.root else None, "reduce")
    case.equal(comm.scan(arrays[rank], op), reduced(op, arrays[: rank + 1]), "scan")
    before = reduced(op, arrays[:rank]) if rank else np.zeros_like(everything)
    case.equal(comm.exscan(arrays[rank], op), before, "exscan")
    if op.function is not one_after_the_other:  # of which a part is no permutation
        got = comm.reduce_scatter(arrays[rank], op)
        case.equal(got, np.split(everything, case.size)[rank], "reduce_scatter")


OPS = (
    ReduceOp.custom(saturating_sum, commutative=True),
    ReduceOp.custom(first_that_speaks),
    ReduceOp.custom(one_after_the_other),
)


def check(run: Run) -> None:
    for op in OPS:
        assert op.function is not None
        for case in run.cases(op.function.__name__, dtypes=(np.dtype(np.int64),), rooted=True, parts=run.comm.size):
            check_op(run, case, op)


if __name__ == "__main__":
    main(check)
