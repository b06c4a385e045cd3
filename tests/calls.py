"""Collectives as plain data: one call on all ranks, whatever runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import collx.algorithms  # noqa: F401  (fills the register)
from collx.collectives import COLLECTIVES
from collx.plan import balanced
from collx.schedule import REGISTER
from collx.types import ReduceOp

SUM = ReduceOp("sum")
INT64 = np.dtype(np.int64)


@dataclass(frozen=True, slots=True)
class Call:
    """One collective on all ranks. `counts` are the elements of the blocks: one per rank where the collective has
    a block per rank, otherwise one number, the whole buffer's. For all_to_all `matrix[i][j]` elements go from i to j.
    Buffers are cut in units of `unit` elements."""

    collective: str
    algorithm: str
    size: int
    counts: tuple[int, ...] = ()
    matrix: tuple[tuple[int, ...], ...] = ()
    dtype: np.dtype[Any] = INT64
    op: ReduceOp = SUM
    root: int = 0
    unit: int = 1
    inplace: bool = False
    segments: int = 1

    def blocks(self, rank: int, cut: int) -> list[int]:
        """The elements of the working buffer's blocks, where the algorithm cuts it into `cut`."""
        if self.matrix:
            return [row[rank] for row in self.matrix]
        if COLLECTIVES[self.collective].per_rank:
            return list(self.counts)
        return [n * self.unit for n in balanced(sum(self.counts) // self.unit, cut)]

    def given(self, rank: int) -> int:
        """The elements of the input."""
        if self.matrix:
            return sum(self.matrix[rank])
        return self._elements(COLLECTIVES[self.collective].before, rank)

    def wanted(self, rank: int) -> int:
        """The elements of the output."""
        return self._elements(COLLECTIVES[self.collective].after, rank)

    def placed(self, rank: int) -> bool:
        """Whether the input lies in the output on this rank."""
        return self.inplace and not self.matrix and set(self._held(rank)) <= set(self._result(rank))

    def _cut(self) -> int:
        return self.size if COLLECTIVES[self.collective].per_rank else 1

    def _held(self, rank: int) -> range:
        return COLLECTIVES[self.collective].before(rank, self.size, self.root, self._cut())

    def _result(self, rank: int) -> range:
        return COLLECTIVES[self.collective].after(rank, self.size, self.root, self._cut())

    def _elements(self, which: Callable[[int, int, int, int], range], rank: int) -> int:
        return sum(self.blocks(rank, self._cut())[b] for b in which(rank, self.size, self.root, self._cut()))


def even(collective: str, algorithm: str, size: int, count: int, **traits: Any) -> Call:
    """A call whose buffer of `count` elements is cut as evenly as it can be (all_to_all: that much to everybody)."""
    if collective == "all_to_all":
        return Call(collective, algorithm, size, matrix=((count,) * size,) * size, **traits)
    return Call(collective, algorithm, size, counts=tuple(balanced(count, size)), **traits)


def sizes_of(collective: str, algorithm: str, largest: int = 8) -> list[int]:
    """The numbers of ranks up to `largest` that an algorithm takes."""
    return [size for size in range(1, largest + 1) if REGISTER[collective, algorithm].sizes(size)]


def registered(**traits: bool) -> list[tuple[str, str]]:
    """The registered (collective, algorithm) pairs that have these traits (`reduces=True`, `ordered=True`, ...)."""

    def fits(key: tuple[str, str]) -> bool:
        known: dict[str, bool] = {
            "ordered": REGISTER[key].ordered,
            "uniform": REGISTER[key].uniform,
            "reduces": COLLECTIVES[key[0]].reduces,
            "rooted": COLLECTIVES[key[0]].rooted,
            "per_rank": COLLECTIVES[key[0]].per_rank,
        }
        return all(known[trait] is wanted for trait, wanted in traits.items())

    return sorted(filter(fits, REGISTER))
