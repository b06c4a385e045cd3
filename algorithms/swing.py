"""Swing: recursive halving and doubling over short detours, for rings and tori."""

from __future__ import annotations

from fractions import Fraction

from collx.schedule import Recv, Schedule, Send, algorithm, powers_of_two


def _partner(rank: int, size: int, step: int) -> int:
    """Even ranks swing 1, -1, 3, -5, ... places; odd ranks the other way."""
    swing = (1 + (2 << step) * (1 if step % 2 == 0 else -1)) // 3
    return (rank + (swing if rank % 2 == 0 else -swing)) % size


def _reached(rank: int, size: int, step: int) -> list[int]:
    """The ranks that data starting on `rank` reaches in the rounds from `step` on."""
    if 1 << step == size:
        return [rank]
    return _reached(rank, size, step + 1) + _reached(_partner(rank, size, step), size, step + 1)


@algorithm(
    "all_reduce",
    "swing",
    rounds=lambda size: 2 * (size - 1).bit_length(),
    volume=lambda size: Fraction(2 * (size - 1), size),
    wins="medium buffers on tori, where it crosses fewer links than halving_doubling",
    source="De Sensi, Bonato, Saam, Hoefler: Swing, short-cutting rings for higher bandwidth allreduce (NSDI 2024)",
    sizes=powers_of_two,
)
def all_reduce(rank: int, size: int) -> Schedule:
    """Give each partner the blocks it will bring on; then gather the results back along the same detours."""
    gather = Schedule(size)
    for step in reversed(range(size.bit_length() - 1)):
        peer = _partner(rank, size, step)
        gather.round(
            Send(_reached(rank, size, step + 1), to=peer),
            Recv(_reached(peer, size, step + 1), source=peer),
        )
    return gather.reversed().then(gather)
