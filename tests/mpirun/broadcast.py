"""broadcast: the root's array overwrites everybody's.

mpirun -n 4 python tests/mpirun/broadcast.py --max-bytes 64M
"""

from __future__ import annotations

from harness import Run, main


def check(run: Run) -> None:
    for case in run.cases(rooted=True):
        x = case.mine()
        run.comm.broadcast(x, case.root)
        case.equal(x, case.of(case.root))


if __name__ == "__main__":
    main(check)
