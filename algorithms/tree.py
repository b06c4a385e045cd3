"""Binomial trees: the subtree below a rank is the ranks that follow it, so rank order is kept."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from collx.schedule import Blocks, Recv, Schedule, Send, algorithm

SOURCE = "Thakur, Rabenseifner, Gropp: Optimization of collective communication in MPICH (IJHPCA 2005), section "


def _down(rank: int, size: int, blocks: int, carried: Callable[[int, int], Blocks]) -> Schedule:
    """From rank 0 to all: in every round each rank reached hands `carried(low, high)` to the rank `low` that
    shall serve the ranks up to `high`."""
    schedule = Schedule(blocks)
    for bit in reversed(range((size - 1).bit_length())):
        distance = 1 << bit
        place, child = rank % (2 * distance), rank + distance
        if place == 0 and child < size:
            schedule.round(Send(carried(child, min(child + distance, size)), to=child))
        elif place == distance:
            schedule.round(Recv(carried(rank, min(rank + distance, size)), source=rank - distance))
        else:
            schedule.round()
    return schedule


@algorithm(
    "broadcast",
    "tree",
    rounds=lambda size: (size - 1).bit_length(),
    volume=lambda size: (size - 1).bit_length(),
    wins="small buffers: the fewest rounds",
    source=SOURCE + "4.2",
)
def broadcast(rank: int, size: int) -> Schedule:
    """Every rank that has the buffer hands it on, so their number doubles in every round."""
    return _down(rank, size, 1, lambda low, high: 0)


@algorithm(
    "reduce",
    "tree",
    rounds=lambda size: (size - 1).bit_length(),
    volume=lambda size: min(size - 1, 1),
    wins="small buffers: the fewest rounds",
    source=SOURCE + "4.5",
)
def reduce(rank: int, size: int) -> Schedule:
    """The broadcast backwards; rank order is kept for root 0 only."""
    return broadcast(rank, size).reversed()


@algorithm(
    "all_reduce",
    "tree",
    rounds=lambda size: 2 * (size - 1).bit_length(),
    volume=lambda size: (size - 1).bit_length(),
    wins="small buffers in rank order where links are few: p-1 messages up, p-1 down",
    source=SOURCE + "4.5",
    ordered=True,
)
def all_reduce(rank: int, size: int) -> Schedule:
    """Reduce to rank 0, then broadcast from it."""
    return reduce(rank, size).then(broadcast(rank, size))


@algorithm(
    "scatter",
    "tree",
    rounds=lambda size: (size - 1).bit_length(),
    volume=lambda size: Fraction(size - 1, size),
    wins="small blocks: the fewest rounds",
    source="binomial tree, as in MPICH",
)
def scatter(rank: int, size: int) -> Schedule:
    """Hand each child the blocks of all ranks below it."""
    return _down(rank, size, size, range)


def _largest_subtree(size: int) -> int:
    children = [1 << bit for bit in range((size - 1).bit_length())]
    return max((min(size, 2 * child) - child for child in children), default=0)


@algorithm(
    "gather",
    "tree",
    rounds=lambda size: (size - 1).bit_length(),
    volume=lambda size: Fraction(_largest_subtree(size), size),
    wins="small blocks: the fewest rounds",
    source="binomial tree, as in MPICH",
)
def gather(rank: int, size: int) -> Schedule:
    """The scatter backwards."""
    return scatter(rank, size).reversed(reduce=False)


@algorithm(
    "barrier",
    "tree",
    rounds=lambda size: 2 * (size - 1).bit_length(),
    volume=lambda size: 0,
    wins="where 2(p-1) signals in all cost less than p in each of half as many rounds",
    source="Mellor-Crummey, Scott: Algorithms for scalable synchronization (TOCS 1991), tree",
)
def barrier(rank: int, size: int) -> Schedule:
    """Signals up to rank 0, then down again."""
    down = _down(rank, size, 1, lambda low, high: ())
    return down.reversed(reduce=False).then(down)
