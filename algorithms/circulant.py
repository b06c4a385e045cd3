"""Circulant graphs: every rank talks to those 1, ..., ceil(p/4), ceil(p/2) places away. No size is special."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

from collx.schedule import Op, Recv, Schedule, Send, algorithm

SOURCE = "Träff: Optimal, non-pipelined reduce-scatter and allreduce algorithms (arXiv 2410.14234)"
BLOCKS = 8  # what broadcast cuts the buffer into: more rounds, but fewer bytes in each


def _skips(size: int) -> list[int]:
    """1, ..., ceil(p/4), ceil(p/2), p."""
    skips = [size]
    while skips[-1] > 1:
        skips.append((skips[-1] + 1) // 2)
    return skips[::-1]


@algorithm(
    "all_gather",
    "circulant",
    rounds=lambda size: (size - 1).bit_length(),
    volume=lambda size: Fraction(size - 1, size),
    wins="small and medium blocks on flat networks, any number of ranks",
    source=SOURCE,
)
def all_gather(rank: int, size: int) -> Schedule:
    """With the next `skip` ranks' blocks held, fetch from `skip` places on the blocks up to the next skip."""
    schedule = Schedule(size)
    for skip, beyond in pairwise(_skips(size)):
        schedule.round(
            Send([(rank + ahead) % size for ahead in range(beyond - skip)], to=(rank - skip) % size),
            Recv([(rank + ahead) % size for ahead in range(skip, beyond)], source=(rank + skip) % size),
        )
    return schedule


@algorithm(
    "reduce_scatter",
    "circulant",
    rounds=lambda size: (size - 1).bit_length(),
    volume=lambda size: Fraction(size - 1, size),
    wins="small and medium buffers on flat networks, any number of ranks",
    source=SOURCE,
)
def reduce_scatter(rank: int, size: int) -> Schedule:
    """all_gather backwards: send half of what is left half around, then a quarter, and so on."""
    return all_gather(rank, size).reversed()


@algorithm(
    "all_reduce",
    "circulant",
    rounds=lambda size: 2 * (size - 1).bit_length(),
    volume=lambda size: Fraction(2 * (size - 1), size),
    wins="medium buffers on flat networks, any number of ranks",
    source=SOURCE,
)
def all_reduce(rank: int, size: int) -> Schedule:
    """Reduce-scatter, then all-gather over the same skips."""
    return reduce_scatter(rank, size).then(all_gather(rank, size))


def _base(rank: int, skips: list[int]) -> int:
    """The block that reaches `rank` first: the last skip of its path from the root, longest skips first."""
    for index in reversed(range(len(skips) - 1)):
        if rank == skips[index]:
            return index
        if rank > skips[index]:
            rank -= skips[index]
    return len(skips) - 1


def _cycle(rank: int, size: int) -> list[int]:
    """Which block `rank` receives in each round of a cycle over all skips, 0 being the one that the root sends
    first in that cycle; each cycle brings as many blocks as it has rounds, most of them from the cycle before.

    In round k the block comes over the path of ever shorter, so far unused skips that ends nearest to the
    rank `skips[k]` places back.
    """
    skips = _skips(size)
    last = len(skips) - 1
    base = _base(rank, skips)
    unused = [index for index in reversed(range(last + 1)) if index != base]
    found: list[int] = []
    nearest = 2 * size

    def back(turn: int) -> int:
        return size + rank - skips[turn]

    def fits(index: int, end: int) -> bool:
        return len(found) < last and index in unused and end <= back(len(found)) and end < nearest

    def search(at: int, candidates: list[int]) -> None:
        nonlocal nearest
        for position, index in enumerate(candidates):
            end = at + skips[index]
            if fits(index, end) and end <= back(len(found) + 1):
                search(end, candidates[position:])
            if len(found) == last or at > back(len(found) + 1):
                return
            if fits(index, end):
                nearest = end
                unused.remove(index)
                found.append(index)

    search(0, list(unused))
    return [base if index == last else index - last for index in found]


@lru_cache(maxsize=4096)
def _arrivals(rank: int, size: int) -> tuple[int | None, ...]:
    """The block that reaches `rank` in each round of the broadcast, None where nothing new does."""
    levels = (size - 1).bit_length()
    rounds = BLOCKS - 1 + levels
    if rank == 0 or size == 1:
        return (None,) * rounds
    cycle, skipped = _cycle(rank, size), -(BLOCKS - 1) % levels
    arrivals: list[int | None] = []
    for step in range(skipped, skipped + rounds):
        block = min(cycle[step % levels] + step // levels * levels - skipped, BLOCKS - 1)
        arrivals.append(block if block >= 0 and block not in arrivals else None)
    return tuple(arrivals)


@algorithm(
    "broadcast",
    "circulant",
    rounds=lambda size: BLOCKS - 1 + (size - 1).bit_length() if size > 1 else 0,
    volume=lambda size: Fraction(BLOCKS - 1 + (size - 1).bit_length(), BLOCKS) if size > 1 else 0,
    wins="medium to large buffers on flat networks: as few rounds as that many blocks can take",
    source="Träff: Round-optimal n-block broadcast schedules in logarithmic time (arXiv 2312.11236)",
)
def broadcast(rank: int, size: int) -> Schedule:
    """Every rank sends in every round what the rank one skip on is due to receive, the skips taking turns."""
    schedule, skips = Schedule(BLOCKS), _skips(size)[:-1]
    for step in range(BLOCKS - 1 + len(skips) if skips else 0):
        skip = skips[(step - (BLOCKS - 1)) % len(skips)]
        to, source = (rank + skip) % size, (rank - skip) % size
        ops: list[Op] = []
        if (due := _arrivals(to, size)[step]) is not None:
            ops.append(Send(due, to=to))
        if (coming := _arrivals(rank, size)[step]) is not None:
            ops.append(Recv(coming, source=source))
        schedule.round(*ops)
    return schedule
