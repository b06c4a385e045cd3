"""What holds of schedules however they are composed."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collx.schedule import REGISTER, Copy, Recv, Schedule, rotation
from collx.verify.proof import prove_schedules
from tests.schedules.cases import KEYS

SIZES = st.integers(1, 12)


def ranks_in_any_order(size: int) -> st.SearchStrategy[list[int]]:
    return st.permutations(range(size))


def algorithms_of(*collectives: str, but: tuple[str, ...] = ()) -> st.SearchStrategy[str]:
    return st.sampled_from([":".join(key) for key in KEYS if key[0] in collectives and key[1] not in but])


def all_ranks(name: str, size: int) -> list[Schedule]:
    collective, _, algorithm = name.partition(":")
    return [REGISTER[collective, algorithm].build(rank, size) for rank in range(size)]


def takes(name: str, size: int) -> bool:
    collective, _, algorithm = name.partition(":")
    return REGISTER[collective, algorithm].sizes(size)


def relabelled(schedules: list[Schedule], order: list[int]) -> list[Schedule]:
    """All ranks' schedules with place i played by rank order[i]."""
    placed: list[Schedule] = [Schedule(1)] * len(order)
    for place, rank in enumerate(order):
        placed[rank] = schedules[place].relabelled(order)
    return placed


@given(algorithms_of("all_reduce", "reduce_scatter", "all_gather", "barrier"), SIZES, st.data())
@settings(deadline=None)
def test_any_order_of_ranks_does(name: str, size: int, data: st.DataObject) -> None:
    if not takes(name, size):
        size = 8
    schedules = all_ranks(name, size)
    order = data.draw(ranks_in_any_order(size))
    collective = name.partition(":")[0]
    before, after = prove_schedules(collective, schedules), prove_schedules(collective, relabelled(schedules, order))
    assert (before.rounds, before.volume, before.messages) == (after.rounds, after.volume, after.messages)


@given(algorithms_of("reduce_scatter"), algorithms_of("all_gather"), st.integers(1, 12))
@settings(deadline=None)
def test_any_reduce_scatter_then_any_all_gather_is_an_all_reduce(first: str, second: str, size: int) -> None:
    halves = zip(all_ranks(first, size), all_ranks(second, size), strict=True)
    prove_schedules("all_reduce", [one.then(two) for one, two in halves])


# "leaders" brings each rank its own block back, which backwards would be a contribution taken in twice.
@given(algorithms_of("all_gather", but=("leaders",)), SIZES, st.sampled_from(["left", "right"]))
@settings(deadline=None)
def test_all_gather_backwards_is_a_reduce_scatter(name: str, size: int, side: str) -> None:
    backwards = [schedule.reversed(side) for schedule in all_ranks(name, size)]  # type: ignore[arg-type]
    prove_schedules("reduce_scatter", backwards)


@given(st.sampled_from(["tree", "chain", "double_tree", "direct", "circulant"]), SIZES, st.data())
@settings(deadline=None)
def test_broadcast_backwards_is_a_reduce(name: str, size: int, data: st.DataObject) -> None:
    root = data.draw(st.integers(0, size - 1))
    algorithm = REGISTER["broadcast", name]
    backwards = [algorithm.build(rank, size, root).reversed() for rank in range(size)]
    prove_schedules("reduce", backwards, root)


@given(SIZES, st.data())
def test_twice_backwards_is_the_schedule_again(size: int, data: st.DataObject) -> None:
    name = data.draw(algorithms_of("all_gather", "broadcast", "scatter"))
    for schedule in all_ranks(name, size):
        again = schedule.reversed(reduce=False).reversed(reduce=False)
        assert repr(again) == repr(schedule)


@given(SIZES, st.data())
def test_orders_compose(size: int, data: st.DataObject) -> None:
    first, second = data.draw(ranks_in_any_order(size)), data.draw(ranks_in_any_order(size))
    both = [second[first[place]] for place in range(size)]
    for schedule in all_ranks("all_gather:pat", size):
        assert repr(schedule.relabelled(first).relabelled(second)) == repr(schedule.relabelled(both))


@given(SIZES, st.data())
def test_then_keeps_both_as_they_were(size: int, data: st.DataObject) -> None:
    rank = data.draw(st.integers(0, size - 1))
    one, two = REGISTER["reduce_scatter", "ring"].build(rank, size), REGISTER["all_gather", "pat"].build(rank, size)
    before = repr((one, two))
    joined = one.then(two)
    assert joined.rounds == one.rounds + two.rounds
    joined.round()
    assert repr((one, two)) == before


def test_groups_of_ranks_embed() -> None:
    """Hierarchies are made of these: two groups of four reduce by themselves, then in pairs across."""
    order = random.Random(7).sample(range(8), 8)
    intra, inter = REGISTER["all_reduce", "recursive_doubling"], REGISTER["all_reduce", "tree"]
    placed: list[Schedule] = [Schedule(1)] * 8
    for place, rank in enumerate(order):
        group, member = divmod(place, 4)
        within = intra.build(member, 4).relabelled(order[4 * group : 4 * group + 4])
        placed[rank] = within.then(inter.build(group, 2).relabelled([order[member], order[4 + member]]))
    prove_schedules("all_reduce", placed)


def test_what_does_not_compose_is_refused() -> None:
    with pytest.raises(ValueError, match="joins schedules of 2 and 3 blocks"):
        Schedule(2).then(Schedule(3))
    with pytest.raises(ValueError, match="has no reverse"):
        Schedule(1).round(Copy(1, 0)).reversed()
    with pytest.raises(ValueError, match="has no reverse"):
        Schedule(1).round(Recv(0, source=1, reduce=True)).reversed()
    with pytest.raises(ValueError, match="Copy of 2 blocks onto 1"):
        Copy((0, 1), 2)


@given(SIZES, st.data())
def test_rotation_lets_the_root_play_rank_0(size: int, data: st.DataObject) -> None:
    root = data.draw(st.integers(0, size - 1))
    order = rotation(0, size, root)
    assert order[0] == root
    assert sorted(order) == list(range(size))
