"""reduce_scatter: each rank gets its rows of the reduction of every rank's array.

mpirun -n 4 python tests/mpirun/reduce_scatter.py --max-bytes 64M
"""

from __future__ import annotations

import numpy as np

from harness import Run, main


def check(run: Run) -> None:
    size = run.comm.size
    for case in run.cases(ops=run.options.ops, parts=size):
        got = run.comm.reduce_scatter(case.mine(size * case.count), case.op)
        case.equal(got, np.split(case.reduced(case.ranks, size * case.count), size)[case.rank])


if __name__ == "__main__":
    main(check)
