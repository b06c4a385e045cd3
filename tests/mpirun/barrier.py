"""barrier: no rank leaves it before the last has come.

mpirun -n 4 python tests/mpirun/barrier.py --repeats 100
"""

from __future__ import annotations

import time

import numpy as np

from harness import Run, main


def check(run: Run) -> None:
    comm = run.comm
    neighbours = [rank for rank, host in enumerate(comm.hosts) if host == comm.hosts[comm.rank]]
    for late in np.tile(np.arange(comm.size), run.options.repeats).tolist():
        with run.case(f"rank {late} late") as case:
            if comm.rank == late:
                time.sleep(0.002)  # so that others, if they did not wait, would have left by now
            came = time.monotonic()
            comm.barrier()
            left = time.monotonic()
            times = comm.all_gather(np.array([[came, left]]))[neighbours]  # a clock is one host's
            case.true(left >= times[:, 0].max(), f"left {times[:, 0].max() - left} s before the last came")


if __name__ == "__main__":
    main(check)
