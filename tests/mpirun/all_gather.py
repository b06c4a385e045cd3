"""all_gather: every rank's rows in rank order, on all ranks.

mpirun -n 4 python tests/mpirun/all_gather.py --max-bytes 64M
"""

from __future__ import annotations

from harness import Run, main


def check(run: Run) -> None:
    for case in run.cases(parts=run.comm.size):
        case.equal(run.comm.all_gather(case.mine()), case.gathered())


if __name__ == "__main__":
    main(check)
