"""One rank's part of a plan, and what it queues for it on memory that lies somewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from collx.cuda.kernels import Move, Queue
from collx.cuda.plan import DevicePlan, Fold, Place, Step
from collx.plan import Space

PLACES = 64  # for which one part keeps what it queues; where memory is ever somewhere else, old ones go

Address = Callable[[int, Space], int]  # where a rank's input, output or workspace begins, as it is mapped here
Make = Callable[[list[Move]], list[Queue]]


@dataclass(frozen=True, slots=True)
class Part:
    """`workers` are, by step, the ranks that do something in it, `steps` what this one does, and `spaces` whose memory
    of which kind it touches then."""

    workers: tuple[tuple[int, ...], ...]
    steps: tuple[Step, ...]
    spaces: tuple[tuple[int, Space], ...]
    _made: dict[tuple[int, ...], list[list[Queue]]] = field(default_factory=dict, compare=False)

    @staticmethod
    def of(plan: DevicePlan, rank: int) -> Part:
        steps = plan.done_by(rank)
        folds = [fold for step in steps for wave in step for fold in wave]
        spaces = dict.fromkeys(place[:2] for fold in folds for place in (*fold.sources, *fold.targets))
        return Part(plan.workers, steps, tuple(spaces))

    def queues(self, address: Address, make: Make, kind: int) -> list[list[Queue]]:
        """By step, what `make` makes of each wave of it, kept for memory that lies where it lies now and the same
        `kind` of making."""
        begins = {space: address(*space) for space in self.spaces}
        key = kind, *begins.values()
        if key not in self._made:
            if len(self._made) >= PLACES:
                del self._made[next(iter(self._made))]
            moves = [[[_found(fold, begins) for fold in wave] for wave in step] for step in self.steps]
            self._made[key] = [[queue for wave in step for queue in make(wave)] for step in moves]
        return self._made[key]


def _found(fold: Fold, begins: dict[tuple[int, Space], int]) -> Move:
    def at(place: Place) -> int:
        return begins[place[:2]] + place.offset

    return Move(tuple(map(at, fold.sources)), tuple(map(at, fold.targets)), fold.nbytes, fold.scale)
