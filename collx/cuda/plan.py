"""What GPUs run: the moves of all ranks in one plan, as every rank of a host sees the memory of all.

A collective on mapped memory needs no messages. A move reads its sources wherever they lie and writes all its targets,
so which rank makes it is free: it is the one whose GPU does it best. All ranks have the same plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from collx.plan import Space


class Place(NamedTuple):
    """Where a block begins: in a rank's input, output or workspace, so many bytes from its begin."""

    rank: int
    space: Space
    offset: int


class Fold(NamedTuple):
    """Fold `nbytes` bytes of each source from the left, and write the result to every target; a copy has one source.
    Rank `by` does it. A target may be the very place of a source, but overlaps none otherwise. `scale`: the result is
    divided by the number of ranks first."""

    sources: tuple[Place, ...]
    targets: tuple[Place, ...]
    nbytes: int
    by: int
    scale: bool = False


Wave = tuple[Fold, ...]  # no fold of it touches a byte that another one writes
Step = tuple[Wave, ...]


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """A rank does its folds of a step wave by wave, in the order of its stream; no fold of a step touches a byte that
    another rank's writes in it. Every rank's step is over before the next one begins; before the first and after the
    last, every rank waits for those that read or write its memory. A barrier has no steps."""

    algorithm: str
    steps: tuple[Step, ...]
    workspace: int  # bytes of each rank's own

    @property
    def workers(self) -> tuple[tuple[int, ...], ...]:
        """By step, the ranks that do something in it."""
        return tuple(tuple(sorted({fold.by for wave in step for fold in wave})) for step in self.steps)

    def done_by(self, rank: int) -> tuple[Step, ...]:
        """What one rank does in each step."""
        own = ((tuple(fold for fold in wave if fold.by == rank) for wave in step) for step in self.steps)
        return tuple(tuple(filter(None, waves)) for waves in own)
