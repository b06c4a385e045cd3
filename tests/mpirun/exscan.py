"""exscan: the reduction of the arrays of the ranks before this one; on rank 0 what changes nothing.

mpirun -n 4 python tests/mpirun/exscan.py --max-bytes 64M
"""

from __future__ import annotations

import numpy as np

from collx.types import identity, reduce_op
from harness import Run, main


def check(run: Run) -> None:
    for case in run.cases(ops=[op for op in run.options.ops if op != "avg"]):
        first = np.full(case.count, identity(reduce_op(case.op), case.dtype), case.dtype)
        case.equal(run.comm.exscan(case.mine(), case.op), case.reduced(range(case.rank)) if case.rank else first)


if __name__ == "__main__":
    main(check)
