"""What a rank makes of its part of a plan, it makes once for memory that lies where it lay."""

from __future__ import annotations

from collx.cuda.kernels import Move, Queue
from collx.cuda.part import PLACES, Part
from collx.cuda.plan import DevicePlan, Fold, Place
from collx.plan import Space

INPUTS, OUTPUTS = ([Place(rank, space, 8) for rank in range(2)] for space in (Space.INPUT, Space.OUTPUT))
PLAN = DevicePlan(
    "two waves",
    (((Fold(tuple(INPUTS), (OUTPUTS[0],), 16, 0),), (Fold((OUTPUTS[0],), (OUTPUTS[1],), 16, 0),)),),
    0,
)


def test_a_part_is_made_once_for_the_same_memory() -> None:
    made: list[list[Move]] = []

    def make(moves: list[Move]) -> list[Queue]:
        made.append(moves)
        return [lambda stream: None]

    part = Part.of(PLAN, 0)
    (queues,) = part.queues(lambda rank, space: 1000 * (rank + 1) + 100 * space, make, 0)
    assert made == [
        [Move((1008, 2008), (1108,), 16)],
        [Move((1108,), (2108,), 16)],
    ]
    assert len(queues) == 2
    assert part.queues(lambda rank, space: 1000 * (rank + 1) + 100 * space, make, 0) == [queues]
    assert len(made) == 2
    for begin in range(PLACES + 1):
        part.queues(lambda rank, space, begin=begin: begin, make, 0)  # type: ignore[misc]
    part.queues(lambda rank, space: 0, make, 1)
    assert len(made) == 2 * (PLACES + 3)


def test_who_does_nothing_touches_nothing() -> None:
    idle = Part.of(PLAN, 1)
    assert idle.workers == ((0,),)
    assert idle.steps == ((),)
    assert idle.spaces == ()
