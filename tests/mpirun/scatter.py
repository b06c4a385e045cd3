"""scatter: each rank gets its rows of the root's array.

mpirun -n 4 python tests/mpirun/scatter.py --max-bytes 64M
"""

from __future__ import annotations

import numpy as np

from harness import Run, main


def check(run: Run) -> None:
    size = run.comm.size
    for case in run.cases(rooted=True, parts=size):
        whole = case.of(case.root, size * case.count)
        given = whole if case.rank == case.root else None
        got = run.comm.scatter(given, case.root, out=np.empty(case.count, case.dtype))
        case.equal(got, np.split(whole, size)[case.rank])


if __name__ == "__main__":
    main(check)
