"""No rank leaves a barrier before all are in it: not in any order its plans allow, and not on any engine."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from collx.engine import Engine
from collx.plan import Lane, Plan
from collx.schedule import REGISTER
from tests.calls import Call
from tests.harness import ENGINES, engines, make_plan, on_every, perform
from tests.oracle import inputs

BARRIERS = sorted(name for collective, name in REGISTER if collective == "barrier")


def finished_without(late: int, plans: list[Plan]) -> list[int]:
    """The ranks whose moves can all be done, in the freest order that `after` and lanes allow, while `late` is away."""
    sent: Counter[tuple[int, int]] = Counter()
    done: list[set[int]] = [set() for _ in plans]
    moved = True
    while moved:
        moved = False
        for rank, plan in enumerate(plans):
            for index, move in enumerate(plan.moves):
                wanted = [(source.peer, rank) for source in move.sources if isinstance(source, Lane)]
                free = set(move.after) <= done[rank] and all(sent[lane] for lane in wanted)
                if rank != late and index not in done[rank] and free:
                    sent.subtract(wanted)
                    sent.update((rank, target.peer) for target in move.targets if isinstance(target, Lane))
                    done[rank].add(index)
                    moved = True
    return [rank for rank, plan in enumerate(plans) if len(done[rank]) == len(plan.moves)]


@pytest.mark.parametrize("size", [2, 3, 4, 5, 7, 8, 13])
@pytest.mark.parametrize("name", BARRIERS)
def test_plans_keep_everybody_in(name: str, size: int) -> None:
    plans = [make_plan(Call("barrier", name, size), rank, 1 << 20, 4) for rank in range(size)]
    for late in range(size):
        assert finished_without(late, plans) == []


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("name", BARRIERS)
def test_engines_keep_everybody_in(name: str, kind: str) -> None:
    size = 4
    call = Call("barrier", name, size)
    nothing = inputs(call)[0]

    for late in range(size):
        entered = [threading.Event() for _ in range(size)]

        def body(rank: int, engine: Engine, late: int = late, entered: list[threading.Event] = entered) -> None:
            if rank == late:
                for other in entered:
                    if other is not entered[rank]:
                        other.wait()
            entered[rank].set()
            perform(call, rank, engine, nothing, 0)
            assert all(event.is_set() for event in entered)

        with engines(kind, size) as ranks:
            on_every(ranks, body)
