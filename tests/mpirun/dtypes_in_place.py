"""Every dtype with every op that it has; results in given arrays, in place, and of arrays that are not contiguous.

mpirun -n 4 python tests/mpirun/dtypes_in_place.py
"""

from __future__ import annotations

import numpy as np

from harness import Case, Run, main

COUNT = 37  # elements for each rank


def dtypes(run: Run, case: Case) -> None:
    out = np.zeros(COUNT, case.dtype)
    got = run.comm.all_reduce(case.mine(COUNT), case.op, out=out)
    case.true(got is out, "the result is not the array given as out")
    case.equal(out, case.reduced(case.ranks, COUNT))


def reductions(run: Run, case: Case) -> None:
    """All collectives that reduce, each into its own input."""
    comm, whole = run.comm, case.size * COUNT
    mine = slice(case.rank * COUNT, (case.rank + 1) * COUNT)
    x = case.mine(whole)
    case.equal(comm.all_reduce(x, case.op, out=x), case.reduced(case.ranks, whole), "all_reduce")
    x = case.mine(whole)
    comm.reduce_scatter(x, case.op, out=x[mine])
    case.equal(x[mine], case.reduced(case.ranks, whole)[mine], "reduce_scatter")
    x = case.mine(whole)
    comm.reduce(x, case.op, case.root, out=x)
    if case.rank == case.root:
        case.equal(x, case.reduced(case.ranks, whole), "reduce")
    if case.op != "avg":
        x = case.mine(whole)
        case.equal(comm.scan(x, case.op, out=x), case.reduced(range(case.rank + 1), whole), "scan")


def copies(run: Run, case: Case) -> None:
    """All collectives that only copy, inputs and outputs inside each other."""
    comm, whole = run.comm, case.size * COUNT
    mine = slice(case.rank * COUNT, (case.rank + 1) * COUNT)
    x = np.zeros(whole, case.dtype)
    x[mine] = case.mine(COUNT)
    case.equal(comm.all_gather(x[mine], out=x), case.gathered(COUNT), "all_gather")
    x = np.zeros(whole, case.dtype)
    x[mine] = case.mine(COUNT)
    comm.gather(x[mine], case.root, out=x)
    if case.rank == case.root:
        case.equal(x, case.gathered(COUNT), "gather")
    x = case.mine(whole)
    parts = [np.split(case.of(rank, whole), case.size)[case.rank] for rank in case.ranks]
    case.equal(comm.all_to_all(x, out=x), np.concatenate(parts), "all_to_all")
    x = case.mine(whole)
    comm.scatter(x, case.root, out=x[mine])
    case.equal(x[mine], case.of(case.root, whole)[mine], "scatter")


def strided(run: Run, case: Case) -> None:
    """Every other element of a column-major array, which is copied on the way in."""
    x = np.asfortranarray(case.mine(6 * COUNT).reshape(COUNT, 6))[:, ::2]
    wanted = case.reduced(case.ranks, 6 * COUNT).reshape(COUNT, 6)[:, ::2]
    case.equal(run.comm.all_reduce(x, case.op), np.ascontiguousarray(wanted))


def check(run: Run) -> None:
    pairs = run.pairs(run.options.ops)
    for dtype, op in pairs:
        with run.case(dtype.name, op, dtype=dtype, op=op) as case:
            dtypes(run, case)
    for turn, dtype in enumerate(run.options.dtypes):
        ops = [op for its, op in pairs if its == dtype] or ["sum"]
        op, root = ops[turn % len(ops)], turn % run.comm.size
        for body in (reductions, copies, strided):
            with run.case(body.__name__, dtype.name, op, dtype=dtype, op=op, root=root) as case:
                body(run, case)


if __name__ == "__main__":
    main(check)
