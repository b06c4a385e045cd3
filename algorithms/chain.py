"""Chains: every rank hands on to the next. Slow for one message, unbeaten for a stream of segments."""

from __future__ import annotations

from collx.schedule import Copy, Recv, Schedule, Send, algorithm

SOURCE = "Pjesivac-Grbovic et al.: Performance analysis of MPI collective operations (Cluster Computing 2007), pipeline"


@algorithm(
    "broadcast",
    "chain",
    rounds=lambda size: size - 1,
    volume=lambda size: min(size - 1, 1),
    wins="large buffers on few ranks: its segments follow each other down the chain",
    source=SOURCE,
)
def broadcast(rank: int, size: int) -> Schedule:
    """In round t rank t sends to rank t+1."""
    schedule = Schedule(1)
    for step in range(size - 1):
        if step == rank:
            schedule.round(Send(0, to=rank + 1))
        elif step == rank - 1:
            schedule.round(Recv(0, source=rank - 1))
        else:
            schedule.round()
    return schedule


@algorithm(
    "reduce",
    "chain",
    rounds=lambda size: size - 1,
    volume=lambda size: min(size - 1, 1),
    wins="large buffers on few ranks: its segments follow each other up the chain",
    source=SOURCE,
)
def reduce(rank: int, size: int) -> Schedule:
    """The broadcast backwards; rank order is kept for root 0 only."""
    return broadcast(rank, size).reversed()


@algorithm(
    "scan",
    "chain",
    rounds=lambda size: size - 1,
    volume=lambda size: min(size - 1, 1),
    wins="large buffers: every rank sends once, segment by segment",
    source=SOURCE,
    ordered=True,
)
def scan(rank: int, size: int) -> Schedule:
    """Put what the ranks before came to in front of one's own, and hand that on."""
    schedule = Schedule(1, [()] * (rank - 1))
    if rank > 0:
        schedule.round(Recv(0, source=rank - 1, reduce="left"))
    if rank < size - 1:
        schedule.round(Send(0, to=rank + 1))
    return schedule


@algorithm(
    "exscan",
    "chain",
    rounds=lambda size: size - 1,
    volume=lambda size: min(size - 1, 1),
    wins="large buffers: every rank sends once, segment by segment",
    source=SOURCE,
    ordered=True,
)
def exscan(rank: int, size: int) -> Schedule:
    """Keep what the ranks before came to, and hand on the same with one's own contribution behind it."""
    schedule = Schedule(1, [()] * (rank - 1))
    if rank == 0:
        return schedule.round(Send(0, to=1)) if size > 1 else schedule
    if rank == size - 1:
        return schedule.round(Recv(0, source=rank - 1))
    own = schedule.scratch(0)
    schedule.round(Copy(0, own)).round(Recv(0, source=rank - 1))
    return schedule.round(Copy(0, own, reduce="left")).round(Send(own, to=rank + 1))
