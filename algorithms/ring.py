"""The ring: every rank talks to its two neighbours only, and no rank sends a byte too much."""

from __future__ import annotations

from fractions import Fraction

from collx.schedule import Recv, Schedule, Send, algorithm

SOURCE = "Patarasuk, Yuan: Bandwidth optimal all-reduce algorithms for clusters of workstations (JPDC 2009)"


@algorithm(
    "all_gather",
    "ring",
    rounds=lambda size: size - 1,
    volume=lambda size: Fraction(size - 1, size),
    wins="large blocks on few ranks, and wherever only neighbours are close",
    source=SOURCE,
)
def all_gather(rank: int, size: int) -> Schedule:
    """Pass on to the right in every round what came from the left in the round before."""
    left, right = (rank - 1) % size, (rank + 1) % size
    schedule = Schedule(size)
    for step in range(size - 1):
        schedule.round(Send((rank - step) % size, to=right), Recv((rank - step - 1) % size, source=left))
    return schedule


@algorithm(
    "reduce_scatter",
    "ring",
    rounds=lambda size: size - 1,
    volume=lambda size: Fraction(size - 1, size),
    wins="large buffers on few ranks, and wherever only neighbours are close",
    source=SOURCE,
)
def reduce_scatter(rank: int, size: int) -> Schedule:
    """Carry each block once around the ring, reducing on the way; block b comes to rest on rank b."""
    return all_gather(rank, size).reversed()


@algorithm(
    "all_reduce",
    "ring",
    rounds=lambda size: 2 * (size - 1),
    volume=lambda size: Fraction(2 * (size - 1), size),
    wins="large buffers on few ranks, and wherever only neighbours are close",
    source=SOURCE,
)
def all_reduce(rank: int, size: int) -> Schedule:
    """Reduce-scatter around the ring, then all-gather back around it."""
    return reduce_scatter(rank, size).then(all_gather(rank, size))
