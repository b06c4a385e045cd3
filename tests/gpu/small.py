"""A few collectives on two ranks, for compute-sanitizer: `python -m tests.gpu.small`, or in a job of `collx run`. With
`threads` its ranks are threads, which need no IPC to share memory."""

from __future__ import annotations

import os
import sys

import numpy as np

import collx
from collx.bootstrap import LONE, find_place
from tests.gpu import calls, jobs, matrix, memory
from tests.gpu.kits import Cupy, Kit
from tests.ranks import on_threads


def checked(comm: collx.Communicator, kit: Kit) -> list[str]:
    found = []
    for check in (lambda comm, kit: matrix.every_collective(comm, kit, (5, 1001)), memory.offsets, calls.handles):
        with kit.stream():
            found += jobs.run(comm, kit, check, "-")
    return found


def main(comm: collx.Communicator) -> bool:
    found = checked(comm, Cupy(0))
    wrong = comm.all_reduce(np.array([len(found)]))[0]
    print("\n".join(found), end="\n" if found else "", file=sys.stderr)
    if comm.rank == 0:
        print("wrong" if wrong else "right", flush=True)
    return bool(wrong)


if __name__ == "__main__":
    if find_place(os.environ) is LONE:
        sys.exit(any((on_threads if "threads" in sys.argv else collx.spawn)(main, 2)))
    with collx.init() as joined:
        sys.exit(main(joined))
