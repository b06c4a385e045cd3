"""Bruck's algorithms: distances 1, 2, 4, ... reach every rank in the fewest rounds, whatever the size."""

from __future__ import annotations

from fractions import Fraction

from collx.schedule import Copy, Recv, Schedule, Send, algorithm

SOURCE = "Bruck, Ho, Kipnis, Upfal, Weathersby: Efficient algorithms for all-to-all communications (TPDS 1997), "


@algorithm(
    "all_gather",
    "bruck",
    rounds=lambda size: (size - 1).bit_length(),
    volume=lambda size: Fraction(size - 1, size),
    wins="small blocks: the fewest rounds, blocks that follow each other in every message",
    source=SOURCE + "concatenation",
)
def all_gather(rank: int, size: int) -> Schedule:
    """Fetch from twice as far in every round as many blocks as are held, or what is still missing."""
    schedule = Schedule(size)
    for bit in range((size - 1).bit_length()):
        held = 1 << bit
        count = min(held, size - held)
        schedule.round(
            Send([(rank + ahead) % size for ahead in range(count)], to=(rank - held) % size),
            Recv([(rank + held + ahead) % size for ahead in range(count)], source=(rank + held) % size),
        )
    return schedule


@algorithm(
    "all_to_all",
    "bruck",
    rounds=lambda size: (size - 1).bit_length(),
    volume=lambda size: Fraction(sum(distance.bit_count() for distance in range(size)), size),
    wins="blocks so small that rounds cost more than bytes",
    source=SOURCE + "index",
    uniform=True,
)
def all_to_all(rank: int, size: int) -> Schedule:
    """A block that must travel d places on goes in the rounds of d's bits, resting in result blocks on its way."""
    schedule = Schedule(size)
    for bit in range((size - 1).bit_length()):
        step = 1 << bit
        moving = [distance for distance in range(size) if distance & step]
        rests = [(rank - distance) % size for distance in moving]
        starts = [schedule.scratch((rank + distance) % size) for distance in moving]
        held = [rest if distance % step else start for distance, rest, start in zip(moving, rests, starts, strict=True)]
        schedule.round(Send(held, to=(rank + step) % size), Recv(rests, source=(rank - step) % size))
    return schedule.round(Copy(schedule.scratch(rank), rank))
