"""An all_reduce of one's own: within a group, across the groups, within a group again.

    collx run -n 4 examples/own_schedule.py
    collx verify examples.own_schedule:all_reduce --sizes 1-32
    collx perf all_reduce -n 4 --algorithm ring,examples.own_schedule:all_reduce

The ranks are cut into groups of neighbours. A leader per group reduces what its members send, the leaders exchange what
they have, and hand the result to their members: three short trips of which only one leaves the group. collx proves the
function for the number of ranks at hand before it runs it, and then it runs as the built-in algorithms do.
"""

import math
import time
from collections.abc import Callable

import numpy as np

import collx
from collx import Recv, Schedule, Send


def all_reduce(rank: int, size: int) -> Schedule:
    """The reduction in groups of about the square root of the size, in rank order."""
    width = math.isqrt(size)
    leader = rank - rank % width
    members = range(leader + 1, min(leader + width, size))
    others = [other for other in range(0, size, width) if other != leader]
    schedule = Schedule(1)  # the buffer is one block, number 0
    if rank != leader:
        return schedule.round(Send(0, to=leader)).round().round(Recv(0, source=leader))
    schedule.round(*(Recv(0, source=member, reduce="right") for member in members))
    schedule.round(
        *(Send(0, to=other) for other in others),
        *(Recv(0, source=other, reduce="left" if other < leader else "right") for other in others),
    )
    return schedule.round(*(Send(0, to=member) for member in members))


def microseconds(comm: collx.Communicator, algorithm: Callable[[int, int], Schedule] | None) -> float:
    """The median time of an all_reduce of 1000 numbers."""
    x, out, times = np.ones(1000), np.empty(1000), []
    for _ in range(200):
        comm.barrier()
        start = time.perf_counter()
        comm.all_reduce(x, out=out, algorithm=algorithm)
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e6


def main() -> None:
    with collx.init() as comm:
        x = np.arange(5.0) + comm.rank
        total = comm.all_reduce(x, algorithm=all_reduce)
        assert (total == comm.all_reduce(x)).all()
        mine, chosen = microseconds(comm, all_reduce), microseconds(comm, None)
        if comm.rank == 0:
            print(f"{comm.size} ranks: {total}")
            print(f"own {mine:.1f} us, collx's choice {chosen:.1f} us")


if __name__ == "__main__":
    main()
