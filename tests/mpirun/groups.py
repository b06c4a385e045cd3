"""Groups by split: by parity, in reverse order, inside each other, of one rank, and several in use in turns.

mpirun -n 4 python tests/mpirun/groups.py --max-bytes 1M
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import collx
from harness import Case, Run, main


def collectives(comm: collx.Communicator, ranks: Sequence[int], case: Case) -> None:
    """What a group of these ranks of the world makes of their contributions."""
    me = ranks.index(case.rank)
    case.true((comm.rank, comm.size) == (me, len(ranks)), f"is {comm!r}, must be rank {me} of {len(ranks)}")
    case.equal(comm.all_reduce(case.mine(), "sum"), case.reduced(ranks), f"all_reduce of {ranks}")
    case.equal(comm.all_gather(case.mine()), np.concatenate([case.of(rank) for rank in ranks]), "all_gather")
    root = case.root % comm.size
    case.equal(comm.broadcast(case.mine(), root), case.of(ranks[root]), "broadcast")
    right, left = (me + 1) % comm.size, (me - 1) % comm.size
    got = comm.sendrecv(case.mine(), right, np.empty(case.count, case.dtype), left)
    case.equal(got, case.of(ranks[left]), "sendrecv")
    comm.barrier()


def split(comm: collx.Communicator, color: int | None, key: int = 0) -> collx.Communicator:
    group = comm.split(color, key)
    assert group is not None
    return group


def parity(run: Run, case: Case) -> None:
    with split(run.comm, case.rank % 2) as group:
        collectives(group, list(range(case.rank % 2, case.size, 2)), case)


def reverse(run: Run, case: Case) -> None:
    with split(run.comm, 5, key=-case.rank) as group:
        collectives(group, list(reversed(case.ranks)), case)


def nested(run: Run, case: Case) -> None:
    """Halves of halves, with what encloses them used in between."""
    half = case.rank * 2 // case.size
    members = [rank for rank in case.ranks if rank * 2 // case.size == half]
    with split(run.comm, half) as outer, split(outer, outer.rank % 2) as inner:
        collectives(inner, members[outer.rank % 2 :: 2], case)
        collectives(outer, members, case)
        collectives(run.comm, list(case.ranks), case)


def alone(run: Run, case: Case) -> None:
    with split(run.comm, case.rank) as group:
        collectives(group, [case.rank], case)


def left_out(run: Run, case: Case) -> None:
    """All but the root, which gives no color."""
    group = run.comm.split(None if case.rank == case.root else 1)
    case.true((group is None) == (case.rank == case.root), f"got {group!r}")
    if group is not None:
        with group:
            collectives(group, [rank for rank in case.ranks if rank != case.root], case)


def in_turns(run: Run, case: Case) -> None:
    """Many groups at a time, whose calls alternate; rows and columns of a grid, as a matrix product has them."""
    width = max(width for width in (1, 2, 3) if case.size % width == 0)
    row, column = divmod(case.rank, width)
    rows, columns = split(run.comm, row), split(run.comm, column)
    for _ in range(3):
        collectives(rows, list(range(row * width, (row + 1) * width)), case)
        collectives(columns, list(range(column, case.size, width)), case)
    rows.close()
    columns.close()


def check(run: Run) -> None:
    for body in (parity, reverse, nested, alone, left_out, in_turns):
        for case in run.cases(body.__name__, ops=("sum",), rooted=True):
            body(run, case)


if __name__ == "__main__":
    main(check)
