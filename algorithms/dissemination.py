"""The dissemination barrier: what a rank has heard doubles in every round."""

from __future__ import annotations

from collx.schedule import Recv, Schedule, Send, algorithm


@algorithm(
    "barrier",
    "dissemination",
    rounds=lambda size: (size - 1).bit_length(),
    volume=lambda size: 0,
    wins="always: the fewest rounds",
    source="Hensgen, Finkel, Manber: Two algorithms for barrier synchronization (IJPP 1988)",
)
def barrier(rank: int, size: int) -> Schedule:
    """Signal the ranks 1, 2, 4, ... places on."""
    schedule = Schedule(1)
    for bit in range((size - 1).bit_length()):
        distance = 1 << bit
        schedule.round(Send((), to=(rank + distance) % size), Recv((), source=(rank - distance) % size))
    return schedule
