"""Parallel aggregated trees: one binomial tree per block, all grown at once, far ranks first."""

from __future__ import annotations

from fractions import Fraction

from collx.schedule import Recv, Schedule, Send, algorithm

SOURCE = "Jeaugey: PAT, a new algorithm for all-gather and reduce-scatter operations at scale (arXiv 2506.20252)"


@algorithm(
    "all_gather",
    "pat",
    rounds=lambda size: (size - 1).bit_length(),
    volume=lambda size: Fraction(size - 1, size),
    wins="small and medium blocks on any number of ranks: few rounds, and the long messages stay near",
    source=SOURCE,
)
def all_gather(rank: int, size: int) -> Schedule:
    """Halve the distance in every round. A rank then holds the blocks that lie multiples of it behind."""
    schedule = Schedule(size)
    for bit in reversed(range((size - 1).bit_length())):
        distance = 1 << bit
        held = range(0, size - distance, 2 * distance)
        schedule.round(
            Send([(rank - behind) % size for behind in held], to=(rank + distance) % size),
            Recv([(rank - distance - behind) % size for behind in held], source=(rank - distance) % size),
        )
    return schedule


@algorithm(
    "reduce_scatter",
    "pat",
    rounds=lambda size: (size - 1).bit_length(),
    volume=lambda size: Fraction(size - 1, size),
    wins="small and medium buffers on any number of ranks: few rounds, and the long messages stay near",
    source=SOURCE,
)
def reduce_scatter(rank: int, size: int) -> Schedule:
    """The trees of all_gather from their leaves to their roots."""
    return all_gather(rank, size).reversed()


@algorithm(
    "all_reduce",
    "pat",
    rounds=lambda size: 2 * (size - 1).bit_length(),
    volume=lambda size: Fraction(2 * (size - 1), size),
    wins="medium buffers on any number of ranks",
    source=SOURCE,
)
def all_reduce(rank: int, size: int) -> Schedule:
    """Reduce-scatter down the trees, then all-gather up."""
    return reduce_scatter(rank, size).then(all_gather(rank, size))
