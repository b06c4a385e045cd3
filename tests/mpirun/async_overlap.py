"""Asynchronous calls: many at a time, beside a computation, in several groups, waited for in any order.

mpirun -n 4 python tests/mpirun/async_overlap.py --max-bytes 64M
"""

from __future__ import annotations

import asyncio

import numpy as np

from groups import split
from harness import Case, Run, main
from point_to_point import wait


def many(run: Run, case: Case) -> None:
    """Different collectives and messages under way together; they are waited for last to first."""
    comm, right, left = run.comm, (case.rank + 1) % case.size, (case.rank - 1) % case.size
    copy, came = case.mine(), np.empty(case.count, case.dtype)
    works = [
        ("all_reduce", comm.all_reduce(case.mine(), "sum", async_op=True), case.reduced(case.ranks)),
        ("recv", comm.recv(came, left, async_op=True), case.of(left)),
        ("all_gather", comm.all_gather(case.mine(), async_op=True), case.gathered()),
        ("broadcast", comm.broadcast(copy, case.root, async_op=True), case.of(case.root)),
        ("scan", comm.scan(case.mine(), "sum", async_op=True), case.reduced(range(case.rank + 1))),
    ]
    sent = comm.send(case.mine(), right, async_op=True)
    for what, work, wanted in reversed(works):
        case.equal(work.wait(), wanted, what)
    wait([sent])


def beside_a_computation(run: Run, case: Case) -> None:
    work = run.comm.all_reduce(case.mine(), "sum", async_op=True)
    numbers = np.arange(50_000.0)
    while not work.done():
        numbers = np.sort(-numbers)
    case.equal(work.wait(), case.reduced(case.ranks))
    case.equal(np.sort(abs(numbers)), np.arange(50_000.0), "the computation")


def behind_each_other(run: Run, case: Case) -> None:
    """A synchronous call waits for its turn behind asynchronous ones."""
    work = run.comm.all_reduce(case.mine(), "sum", async_op=True)
    case.equal(run.comm.all_gather(case.mine()), case.gathered(), "synchronous")
    case.true(work.done(), "the call before has not ended")
    case.equal(work.wait(), case.reduced(case.ranks), "asynchronous")


def in_groups(run: Run, case: Case) -> None:
    """In the world and in two groups of it at the same time."""
    color = case.rank % 2
    members = range(color, case.size, 2)
    with split(run.comm, color) as group, split(run.comm, 0, key=-case.rank) as reverse:
        works = [comm.all_reduce(case.mine(), "sum", async_op=True) for comm in (group, reverse, run.comm)]
        for work, ranks in zip(works, (members, case.ranks, case.ranks), strict=True):
            case.equal(work.wait(), case.reduced(ranks), f"all_reduce of {ranks}")


def awaited(run: Run, case: Case) -> None:
    async def both() -> None:
        first = run.comm.all_reduce(case.mine(), "sum", async_op=True)
        second = run.comm.all_gather(case.mine(), async_op=True)
        case.equal(await second, case.gathered(), "second")
        case.equal(await first, case.reduced(case.ranks), "first")

    asyncio.run(both())


def handles(run: Run, case: Case) -> None:
    """A persistent handle, run again on what its array holds by then."""
    x = case.mine()
    again = run.comm.plan("all_reduce", x, "sum", out=np.empty_like(x))
    for turn in range(3):
        x[:] = case.of((case.rank + turn) % case.size)
        case.equal(again(async_op=True).wait(), case.reduced(case.ranks), f"turn {turn}")


def check(run: Run) -> None:
    for body in (many, beside_a_computation, behind_each_other, in_groups, awaited, handles):
        for case in run.cases(body.__name__.replace("_", " "), ops=("sum",), rooted=True):
            body(run, case)


if __name__ == "__main__":
    main(check)
