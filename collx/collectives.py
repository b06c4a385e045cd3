"""Each collective, specified once: which blocks a rank holds before, and what it must hold after.

`verify` proves schedules against this table and `plan` lays memory out by it. Ranks and blocks are the same
numbers wherever a block belongs to a rank.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

# What block b must hold on rank r in the end:
#   reduction  the op over every rank's block b             prefix   the op over block b of ranks 0..r (or 0..r-1)
#   owner      rank b's (or the root's) block               exchange rank b's block that was meant for r
#   heard      nothing: every rank must have heard of every other
Result = Literal["reduction", "prefix", "owner", "exchange", "heard"]
Where = Callable[[int, int, int, int], range]


def _every(rank: int, size: int, root: int, blocks: int) -> range:
    return range(blocks)


def _own(rank: int, size: int, root: int, blocks: int) -> range:
    return range(rank, rank + 1)


def _none(rank: int, size: int, root: int, blocks: int) -> range:
    return range(0)


def _at_root(rank: int, size: int, root: int, blocks: int) -> range:
    return range(blocks) if rank == root else range(0)


def _after_first(rank: int, size: int, root: int, blocks: int) -> range:
    return range(blocks) if rank > 0 else range(0)  # there is nothing before rank 0


def _given(rank: int, size: int, root: int, blocks: int) -> range:
    return range(blocks, blocks + size)


@dataclass(frozen=True, slots=True)
class Collective:
    """`before(rank, size, root, blocks)` numbers the blocks of the caller's input, in memory order, and
    `after(...)` those of its output. `per_rank` ties the number of blocks to the size, one per rank;
    otherwise the algorithm may cut the buffer as it likes."""

    name: str
    before: Where
    after: Where
    result: Result
    per_rank: bool = False
    rooted: bool = False

    @property
    def reduces(self) -> bool:
        return self.result in ("reduction", "prefix")


COLLECTIVES: dict[str, Collective] = {
    spec.name: spec
    for spec in (
        Collective("all_reduce", _every, _every, "reduction"),
        Collective("reduce_scatter", _every, _own, "reduction", per_rank=True),
        Collective("all_gather", _own, _every, "owner", per_rank=True),
        Collective("all_to_all", _given, _every, "exchange", per_rank=True),
        Collective("broadcast", _at_root, _every, "owner", rooted=True),
        Collective("reduce", _every, _at_root, "reduction", rooted=True),
        Collective("gather", _own, _at_root, "owner", per_rank=True, rooted=True),
        Collective("scatter", _at_root, _own, "owner", per_rank=True, rooted=True),
        Collective("scan", _every, _every, "prefix"),
        Collective("exscan", _every, _after_first, "prefix"),
        Collective("barrier", _none, _none, "heard"),
    )
}
