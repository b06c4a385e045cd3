"""reduce: the reduction of every rank's array, on the root.

mpirun -n 4 python tests/mpirun/reduce.py --max-bytes 64M
"""

from __future__ import annotations

from harness import Run, main


def check(run: Run) -> None:
    for case in run.cases(ops=run.options.ops, rooted=True):
        got = run.comm.reduce(case.mine(), case.op, case.root)
        case.equal(got, case.reduced(case.ranks) if case.rank == case.root else None)


if __name__ == "__main__":
    main(check)
