"""scan: the reduction of the arrays of ranks 0 to this one.

mpirun -n 4 python tests/mpirun/scan.py --max-bytes 64M
"""

from __future__ import annotations

from harness import Run, main


def check(run: Run) -> None:
    for case in run.cases(ops=[op for op in run.options.ops if op != "avg"]):
        case.equal(run.comm.scan(case.mine(), case.op), case.reduced(range(case.rank + 1)))


if __name__ == "__main__":
    main(check)
