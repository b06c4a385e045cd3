"""Collectives by counts: ranks have unequal numbers of rows, some of them none.

mpirun -n 4 python tests/mpirun/v_variants.py --max-bytes 64M
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from collx.types import Array
from harness import Case, Run, main

COLUMNS = 3  # of each row


def rows(case: Case, rank: int, count: int) -> Array:
    return case.of(rank, count * COLUMNS).reshape(count, COLUMNS)


def part(array: Array, counts: Array, rank: int) -> Array:
    return np.split(array, np.cumsum(counts)[:-1])[rank]


def reduce_scatter(run: Run, case: Case, counts: Array) -> None:
    total = case.reduced(case.ranks, int(counts.sum()) * COLUMNS).reshape(-1, COLUMNS)
    got = run.comm.reduce_scatter(rows(case, case.rank, counts.sum()), case.op, counts=counts.tolist())
    case.equal(got, part(total, counts, case.rank))


def all_gather(run: Run, case: Case, counts: Array) -> None:
    wanted = np.concatenate([rows(case, rank, counts[rank]) for rank in case.ranks])
    case.equal(run.comm.all_gather(rows(case, case.rank, counts[case.rank]), counts=counts.tolist()), wanted)


def gather(run: Run, case: Case, counts: Array) -> None:
    wanted = np.concatenate([rows(case, rank, counts[rank]) for rank in case.ranks])
    got = run.comm.gather(rows(case, case.rank, counts[case.rank]), case.root, counts=counts.tolist())
    case.equal(got, wanted if case.rank == case.root else None)


def scatter(run: Run, case: Case, counts: Array) -> None:
    whole = rows(case, case.root, counts.sum())
    out = np.empty((counts[case.rank], COLUMNS), case.dtype)
    given = whole if case.rank == case.root else None
    case.equal(run.comm.scatter(given, case.root, counts=counts.tolist(), out=out), part(whole, counts, case.rank))


def all_to_all(run: Run, case: Case, counts: Array) -> None:
    """Rank i has as many rows for rank j as j's count says, and i more: a matrix that is not symmetric."""
    matrix = counts[np.newaxis, :] + np.arange(case.size)[:, np.newaxis]
    wanted = [part(rows(case, rank, matrix[rank].sum()), matrix[rank], case.rank) for rank in case.ranks]
    got = run.comm.all_to_all(
        rows(case, case.rank, matrix[case.rank].sum()),
        send_counts=matrix[case.rank].tolist(),
        recv_counts=matrix[:, case.rank].tolist(),
    )
    case.equal(got, np.concatenate(wanted))


COLLECTIVES: tuple[Callable[[Run, Case, Array], None], ...] = (reduce_scatter, all_gather, gather, scatter, all_to_all)


def check(run: Run) -> None:
    size = run.comm.size
    for collective in COLLECTIVES:
        ops, rooted = run.options.ops if collective is reduce_scatter else (), collective in (gather, scatter)
        for case in run.cases(collective.__name__, ops=ops, rooted=rooted, parts=size * COLUMNS):
            counts = case.random.integers(0, 2 * case.count, size, endpoint=True)
            counts[case.random.integers(size)] = 0
            collective(run, case, counts)


if __name__ == "__main__":
    main(check)
