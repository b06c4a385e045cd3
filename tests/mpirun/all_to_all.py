"""all_to_all: part j of a rank's array goes to rank j.

mpirun -n 4 python tests/mpirun/all_to_all.py --max-bytes 64M
"""

from __future__ import annotations

import numpy as np

from harness import Run, main


def check(run: Run) -> None:
    size = run.comm.size
    for case in run.cases(parts=size):
        got = run.comm.all_to_all(case.mine(size * case.count))
        parts = [np.split(case.of(rank, size * case.count), size)[case.rank] for rank in case.ranks]
        case.equal(got, np.concatenate(parts))


if __name__ == "__main__":
    main(check)
