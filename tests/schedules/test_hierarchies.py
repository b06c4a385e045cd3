"""Algorithms over groups of ranks: proved over random groupings, and sparing with what joins the groups."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collx.collectives import COLLECTIVES
from collx.schedule import REGISTER, Algorithm, Groups, Recv, Send, along, grouped
from collx.verify import prove
from collx.verify.groupings import a_grouping
from collx.verify.named import roots
from tests.schedules.cases import KEYS, SEED

OVER = [key for key in KEYS if REGISTER[key].over]
ALGORITHMS = pytest.mark.parametrize("key", OVER, ids=":".join)


def over(key: tuple[str, str], groups: Groups) -> Algorithm:
    bound = REGISTER[key].over
    assert bound is not None
    return bound(groups)


def groupings(most: int = 24) -> st.SearchStrategy[Groups]:
    return st.randoms(use_true_random=False).map(lambda draw: a_grouping(draw, most))


@ALGORITHMS
@given(groups=groupings())
@settings(deadline=None, max_examples=40)
def test_any_grouping_and_root(key: tuple[str, str], groups: Groups) -> None:
    size = sum(map(len, groups))
    for root in roots(key[0], size):
        prove(over(key, groups), size, root)


@ALGORITHMS
def test_a_changing_sample_of_larger_groupings(key: tuple[str, str]) -> None:
    draw = random.Random(f"{SEED} {key}")
    for _ in range(2):
        groups = a_grouping(draw)
        size = sum(map(len, groups))
        print(f"{groups}, from COLLX_TEST_SEED={SEED}")
        prove(over(key, groups), size, draw.randrange(size) if COLLECTIVES[key[0]].rooted else 0)


def test_there_is_one_of_every_collective() -> None:
    assert {collective for collective, name in OVER if name == "hierarchical"} == set(COLLECTIVES)


def crossing(algorithm: Algorithm, groups: Groups) -> list[Fraction]:
    """What leaves each group, in units of the buffer."""
    where = {rank: number for number, group in enumerate(groups) for rank in group}
    left, blocks = [0] * len(groups), 1
    for rank in where:
        schedule = algorithm.build(rank, len(where))
        blocks = schedule.blocks
        sends = (op for ops in schedule.rounds for op in ops if isinstance(op, Send))
        left[where[rank]] += sum(len(op.blocks) for op in sends if where[op.to] != where[rank])
    return [Fraction(number, blocks) for number in left]


@given(groups=groupings(40))
@settings(deadline=None)
def test_no_byte_too_much_leaves_a_group(groups: Groups) -> None:
    count, size = len(groups), sum(map(len, groups))
    for name, least in (
        ("all_reduce", [Fraction(2 * (count - 1), count)] * count),
        ("reduce_scatter", [Fraction(size - len(group), size) for group in groups]),
        ("all_to_all", [Fraction(len(group) * (size - len(group)), size) for group in groups]),
    ):
        assert crossing(over((name, "hierarchical"), groups), groups) == least


def test_a_ring_follows_the_hosts() -> None:
    """Two hosts take turns in rank order: the ring as it is crosses at every step, along the hosts twice."""
    groups = grouped(["alpha", "beta"] * 4)
    assert groups == ((0, 2, 4, 6), (1, 3, 5, 7))
    ring = REGISTER["all_reduce", "ring"]
    flat, ordered = (crossing(one, groups) for one in (ring, along(ring, groups[0] + groups[1])))
    assert flat == [7, 7]
    assert ordered == [Fraction(7, 4)] * 2
    assert crossing(over(("all_reduce", "hierarchical"), groups), groups) == [1, 1]


@given(st.sampled_from([key for key in KEYS if COLLECTIVES[key[0]].result != "prefix"]), st.data())
@settings(deadline=None)
def test_every_algorithm_can_follow_an_order(key: tuple[str, str], data: st.DataObject) -> None:
    algorithm = REGISTER[key]
    size = data.draw(st.sampled_from([size for size in range(1, 17) if algorithm.sizes(size)]))
    root = data.draw(st.integers(0, size - 1)) if COLLECTIVES[key[0]].rooted else 0
    order = data.draw(st.permutations(range(size)))
    prove(along(algorithm, tuple(order)), size, root)


@pytest.mark.parametrize("groups", [((0, 1), (1, 2)), ((0,), (2,)), ((0, 1), ()), ((1, 2),)])
def test_ranks_that_are_in_no_group_or_in_two_are_refused(groups: Groups) -> None:
    with pytest.raises(ValueError, match="every rank once"):
        over(("all_reduce", "hierarchical"), groups)


def test_of_one_group_it_is_what_serves_within() -> None:
    for collective, name in (("all_reduce", "two_shot"), ("all_to_all", "direct"), ("scatter", "direct")):
        for rank in range(5):
            one, other = (
                [ops for ops in REGISTER[collective, each].build(rank, 5).rounds if ops]
                for each in ("hierarchical", name)
            )
            assert repr(one) == repr(other)


def test_messages_of_a_grouping_meet_round_by_round_within_it() -> None:
    """What goes across is one message per rank and round, to one peer."""
    groups = grouped([0, 1, 0, 1, 0, 1, 0, 1])
    for rank in range(8):
        for ops in over(("all_reduce", "hierarchical"), groups).build(rank, 8).rounds:
            away = [
                op
                for op in ops
                if isinstance(op, Send | Recv) and (op.to if isinstance(op, Send) else op.source) % 2 != rank % 2
            ]
            assert len(away) in (0, 2)


def test_a_root_of_a_large_group_sends_every_other_rank_s_block_once() -> None:
    """Of as many ranks a schedule that took quadratic time would take a quarter of an hour."""
    size = 40_000
    schedule = over(("scatter", "hierarchical"), grouped([rank % 2 for rank in range(size)])).build(0, size)
    sent = [block for ops in schedule.rounds for op in ops if isinstance(op, Send) for block in op.blocks]
    assert sorted(sent) == list(range(1, size))
