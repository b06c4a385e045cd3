"""Pairwise exchange: one partner at a time, so that no rank is sent to by two at once."""

from __future__ import annotations

from fractions import Fraction

from collx.schedule import Copy, Recv, Schedule, Send, algorithm


@algorithm(
    "all_to_all",
    "pairwise",
    rounds=lambda size: size - 1,
    volume=lambda size: Fraction(size - 1, size),
    wins="large blocks, and blocks of very different sizes",
    source="Thakur, Rabenseifner, Gropp: Optimization of collective communication in MPICH (IJHPCA 2005), section 4.3",
)
def all_to_all(rank: int, size: int) -> Schedule:
    """In round t send to the rank t places on and receive from the rank t places back."""
    schedule = Schedule(size)
    for step in range(1, size):
        to, source = (rank + step) % size, (rank - step) % size
        schedule.round(Send(schedule.scratch(to), to=to), Recv(source, source=source))
    return schedule.round(Copy(schedule.scratch(rank), rank))
