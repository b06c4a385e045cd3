"""Each pass leaves a program's results as they are, whatever the program; and does what it is there for."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collx.cuda.passes import compacted, forwarded, merged, needed, scaled, stepped
from collx.cuda.plan import Fold, Place
from collx.plan import GRAIN, Space

RANKS, BLOCK = 3, 8
WORKERS = (0, 1, 1)
Memory = dict[Place, Any]

I, O, W = ([Place(rank, space, 0) for rank in range(RANKS)] for space in Space)  # noqa: E741
places = st.builds(Place, st.integers(0, RANKS - 1), st.sampled_from(Space), st.sampled_from([0, BLOCK, 2 * BLOCK]))


@st.composite
def folds(draw: st.DrawFn) -> Fold:
    sources = tuple(draw(st.lists(places, min_size=1, max_size=3)))
    writable = places.filter(lambda place: place.space is not Space.INPUT and (place,) != sources)
    return Fold(sources, (draw(writable),), BLOCK, draw(st.sampled_from(WORKERS)), draw(st.booleans()))


def begun(program: list[Fold]) -> list[Fold]:
    """With all of each workspace that it reads written first, by the rank itself."""
    used = sorted({place for one in program for place in one.sources if place.space is Space.WORKSPACE})
    return [*(copy(place._replace(space=Space.INPUT), place, by=WORKERS[place.rank]) for place in used), *program]


programs = st.lists(folds(), max_size=12).map(begun)


def run(program: Iterable[Fold], scaling: bool = False) -> Memory:
    """What outputs hold in the end: expressions of what lay where in the beginning."""
    memory: Memory = {}
    for fold in program:
        for offset in range(0, fold.nbytes, BLOCK):
            values = tuple(memory.get(moved(source, offset), moved(source, offset)) for source in fold.sources)
            result = values[0] if len(values) == 1 else values
            result = ("scaled", result) if fold.scale else result
            memory.update({moved(target, offset): result for target in fold.targets})
    return {place: value for place, value in memory.items() if place.space is Space.OUTPUT and value != place}


def moved(place: Place, offset: int) -> Place:
    return place._replace(offset=place.offset + offset)


def copy(source: Place, *targets: Place, by: int = 0) -> Fold:
    return Fold((source,), targets, BLOCK, by)


def fold(sources: Sequence[Place], *targets: Place, by: int = 0, scale: bool = False) -> Fold:
    return Fold(tuple(sources), targets, BLOCK, by, scale)


@settings(max_examples=100, deadline=None)
@given(program=programs)
def test_results_stay_as_they_are(program: list[Fold]) -> None:
    wanted = run(program)
    for one in (merged, forwarded, needed):
        assert run(one(program)) == wanted, one.__name__
    assert run(compacted(needed(forwarded(merged(program))))[0]) == wanted


@settings(max_examples=100, deadline=None)
@given(program=programs, seed=st.integers(0, 1 << 16))
def test_folds_of_a_step_may_be_done_in_any_order(program: list[Fold], seed: int) -> None:
    """Those of each rank wave by wave, those of different ranks as it comes."""
    draw, order = random.Random(seed), list[Fold]()
    for step in stepped(program):
        for by in draw.sample(sorted(set(WORKERS)), len(set(WORKERS))):
            for wave in step:
                own = [one for one in wave if one.by == by]
                order += draw.sample(own, len(own))
    assert run(order) == run(program)


@settings(max_examples=100, deadline=None)
@given(program=programs)
def test_scaling_divides_every_result_once(program: list[Fold]) -> None:
    """Copies of what was there before have no result to divide, so only folds write to outputs here."""
    program = [
        one._replace(scale=False) for one in program if len(one.sources) > 1 or one.targets[0].space is Space.WORKSPACE
    ]
    wanted = {place: ("scaled", value) for place, value in run(program).items()}
    assert run(scaled(program, WORKERS)) == wanted


def test_what_one_rank_folds_twice_is_folded_once() -> None:
    assert merged([fold(I, O[0]), fold(I, O[1])]) == [fold(I, O[0], O[1])]
    by_each = [fold(I, O[0], by=0), fold(I, O[1], by=1)]
    assert merged(by_each) == by_each
    other_way = [fold(I, O[0]), fold(I[::-1], O[1])]
    assert merged(other_way) == other_way


def test_what_is_fetched_is_pushed_by_who_made_it() -> None:
    assert merged([fold(I, O[0]), copy(O[0], O[1], by=1), copy(O[1], O[2], by=1)]) == [fold(I, O[0], O[1], O[2])]


@pytest.mark.parametrize("between", [copy(O[1], O[2], by=1), copy(I[2], O[1], by=1)])
def test_nothing_is_written_earlier_than_others_are_done_with_the_place(between: Fold) -> None:
    program = [fold(I, O[0]), between, copy(O[0], O[1], by=1)]
    assert merged(program) == program


def test_what_is_there_already_is_not_written() -> None:
    assert merged([copy(I[0], O[1]), copy(I[0], O[1]), copy(O[1], W[0]), copy(W[0], O[1])]) == [copy(I[0], O[1], W[0])]


def test_what_was_set_aside_is_read_in_its_place_by_who_overwrites_it() -> None:
    program = [copy(O[0], W[0]), fold([W[0], I[1]], O[0], by=1)]
    assert forwarded(program)[1].sources == (O[0], I[1])


@pytest.mark.parametrize("last", [copy(I[0], O[0], by=0), fold([O[0], I[0]], O[0], by=0)])
def test_what_another_rank_overwrites_is_read_where_it_was_set_aside(last: Fold) -> None:
    program = [copy(O[0], W[0]), fold([W[0], I[1]], O[1], by=1), last]
    assert forwarded(program) == program


def test_what_nobody_reads_is_not_done() -> None:
    assert needed([copy(I[0], W[0]), copy(I[1], O[0]), copy(I[2], O[0])]) == [copy(I[2], O[0])]
    assert needed([fold(I, O[0], W[1])]) == [fold(I, O[0])]


def test_workspaces_have_no_gaps() -> None:
    far = Place(1, Space.WORKSPACE, 4096)
    program, nbytes = compacted([copy(I[1], far), copy(far, O[0])])
    assert program == [copy(I[1], W[1]), copy(W[1], O[0])]
    assert nbytes == GRAIN


def test_ranks_wait_for_each_other_but_not_for_themselves() -> None:
    alone = [copy(I[0], W[0]), copy(W[0], O[0])]
    assert stepped(alone) == (((alone[0],), (alone[1],)),)
    passed = [copy(I[0], W[0], by=1), copy(W[0], O[0])]
    assert stepped(passed) == (((passed[0],),), ((passed[1],),))


def test_folds_that_follow_each_other_everywhere_are_one() -> None:
    halves = [fold([moved(p, at) for p in I], moved(O[0], at)) for at in (BLOCK, 0)]
    assert stepped(halves) == (((halves[1]._replace(nbytes=2 * BLOCK),),),)
    apart = [copy(I[0], O[0]), copy(moved(I[0], BLOCK), moved(O[0], 2 * BLOCK))]
    assert stepped(apart) == ((tuple(apart),),)
