"""gather: every rank's rows in rank order, on the root.

mpirun -n 4 python tests/mpirun/gather.py --max-bytes 64M
"""

from __future__ import annotations

from harness import Run, main


def check(run: Run) -> None:
    for case in run.cases(rooted=True, parts=run.comm.size):
        got = run.comm.gather(case.mine(), case.root)
        case.equal(got, case.gathered() if case.rank == case.root else None)


if __name__ == "__main__":
    main(check)
