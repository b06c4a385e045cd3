"""all_reduce: the reduction of every rank's array, on all ranks.

mpirun -n 4 python tests/mpirun/all_reduce.py --max-bytes 64M
"""

from __future__ import annotations

from harness import Run, main


def check(run: Run) -> None:
    for case in run.cases(ops=run.options.ops):
        case.equal(run.comm.all_reduce(case.mine(), case.op), case.reduced(case.ranks))


if __name__ == "__main__":
    main(check)
