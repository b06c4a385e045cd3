"""Prefix reductions by doubling."""

from __future__ import annotations

from collx.schedule import Recv, Schedule, Send, algorithm

SOURCE = "Hillis, Steele: Data parallel algorithms (CACM 1986), partial sums"


@algorithm(
    "scan",
    "doubling",
    rounds=lambda size: (size - 1).bit_length(),
    volume=lambda size: (size - 1).bit_length(),
    wins="small buffers: the fewest rounds",
    source=SOURCE,
    ordered=True,
)
def scan(rank: int, size: int) -> Schedule:
    """After the round of distance d a rank has the reduction of the last 2d ranks up to itself."""
    schedule = Schedule(1)
    for bit in range((size - 1).bit_length()):
        above, below = rank + (1 << bit), rank - (1 << bit)
        sends = [Send(0, to=above)] if above < size else []
        recvs = [Recv(0, source=below, reduce="left")] if below >= 0 else []
        schedule.round(*sends, *recvs)
    return schedule


@algorithm(
    "exscan",
    "doubling",
    rounds=lambda size: 1 + (size - 2).bit_length() if size > 1 else 0,
    volume=lambda size: 1 + (size - 2).bit_length() if size > 1 else 0,
    wins="small buffers: the fewest rounds but one",
    source=SOURCE + "; shifted by one rank first",
    ordered=True,
)
def exscan(rank: int, size: int) -> Schedule:
    """Take over the contribution of the rank before; then ranks 1 and on scan these."""
    sends = [Send(0, to=rank + 1)] if rank < size - 1 else []
    recvs = [Recv(0, source=rank - 1)] if rank > 0 else []
    shift = Schedule(1).round(*sends, *recvs)
    return shift.then(scan(rank - 1, size - 1).relabelled(range(1, size))) if rank > 0 else shift
