"""What the selector makes of communicators that are too large for some algorithms' messages."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from collx import _core
from collx.collectives import COLLECTIVES
from collx.plan import Lane, Plan
from collx.planner import make_plan
from collx.request import Request
from collx.schedule import REGISTER, Groups, grouped
from collx.selector import BETWEEN_HOSTS, DEFAULTS, KIB, MIB, Rule
from collx.types import reduce_op


def planned(collective: str, elements: int, size: int, algorithm: str | None = None) -> Plan:
    """Rank 1's plan for slots as the native engine has them on that many ranks."""
    spec = COLLECTIVES[collective]
    counts = (elements,) * (size if spec.per_rank else 1)
    op = reduce_op("sum") if spec.reduces else None
    return make_plan(
        Request(collective, counts, np.dtype(np.float32), algorithm, op), 1, size, _core.geometry(size)[1], 2
    )[0]


@pytest.mark.parametrize(
    ("collective", "elements", "size"),
    [
        ("all_reduce", 1 << 20, 300),
        ("reduce_scatter", 64, 300),
        ("all_gather", 64, 300),
        ("broadcast", 1 << 20, 300),
        ("gather", 64, 512),
        ("scatter", 64, 512),
    ],
)
def test_algorithms_whose_messages_fit_no_slot_are_left_out(collective: str, elements: int, size: int) -> None:
    plan = planned(collective, elements, size)
    capacity = _core.geometry(size)[1]
    assert all(sum(map(plan.step, move.lengths)) <= capacity for move in plan.moves if len(move.lengths) > 1)


def test_small_blocks_fit_where_large_ones_do_not() -> None:
    assert planned("all_gather", 1, 300, "pat").segments == 1
    with pytest.raises(ValueError, match="'pat' here: its messages of 150 blocks do not fit into slots of 8192 bytes"):
        planned("all_gather", 64, 300, "pat")


@pytest.mark.parametrize("table", [DEFAULTS, BETWEEN_HOSTS], ids=["one host", "hosts"])
@pytest.mark.parametrize("powers", [False, True])
@pytest.mark.parametrize("collective", COLLECTIVES)
def test_every_rule_can_decide_and_one_always_does(collective: str, powers: bool, table: tuple[Rule, ...]) -> None:
    rules = [rule for rule in table if rule.collective == collective and (powers or not rule.powers)]
    last = [at for at, rule in enumerate(rules) if rule.powers and rule.size == rule.nbytes == float("inf")]
    if last:  # the later ones are behind it
        rules = rules[: last[0] + 1]
    assert rules[-1].size == rules[-1].nbytes == float("inf")
    for before, after in pairwise(rules):
        assert before.size < after.size or (before.size == after.size and before.nbytes < after.nbytes)
    assert all((collective, name) in REGISTER for rule in rules for name in rule.algorithms)


@pytest.mark.parametrize(
    ("size", "most"), [(2, 512 * KIB), (3, 32 * KIB), (4, 32 * KIB), (5, 16 * KIB), (16, 16 * KIB)]
)
def test_one_round_serves_small_sums_of_few_ranks(size: int, most: int) -> None:
    assert planned("all_reduce", most // 4, size).algorithm == "direct"
    assert planned("all_reduce", most // 4 + 1, size).algorithm == "two_shot"


@pytest.mark.parametrize(("size", "chosen"), [(2, "direct"), (3, "pat"), (4, "halving"), (6, "pat"), (8, "halving")])
def test_between_hosts_what_is_for_powers_of_two_serves_those(size: int, chosen: str) -> None:
    request = Request("reduce_scatter", (64,) * size, np.dtype(np.float32), None, reduce_op("sum"))
    capacity = _core.geometry(size)[1]
    assert {make_plan(request, rank, size, capacity, 2, far=True)[0].algorithm for rank in range(size)} == {chosen}


def peers(plan: Plan) -> set[int]:
    operands = [operand for move in plan.moves for operand in (*move.sources, *move.targets)]
    return {operand.peer for operand in operands if isinstance(operand, Lane)}


def between(hosts: Groups, rank: int, algorithm: str | None = None, elements: int = 1 << 20, op: str = "sum") -> Plan:
    request = Request("all_reduce", (elements,), np.dtype(np.float32), algorithm, reduce_op(op))
    return make_plan(request, rank, sum(map(len, hosts)), 1 << 16, 2, far=len(hosts) > 1, hosts=hosts)[0]


def test_neighbours_of_a_ring_are_on_one_host_where_ranks_alternate() -> None:
    hosts = grouped(["alpha", "beta"] * 2)
    assert [peers(between(hosts, rank, "ring")) for rank in range(4)] == [{2, 3}, {2, 3}, {0, 1}, {0, 1}]
    assert [peers(between((tuple(range(4)),), rank, "ring")) for rank in range(4)] == [{1, 3}, {0, 2}, {1, 3}, {0, 2}]


def test_what_is_asked_for_over_hosts_is_over_those_of_the_communicator() -> None:
    hosts = grouped(["alpha", "beta"] * 4)
    assert peers(between(hosts, 0, "hierarchical")) == {1, 2, 4, 6}
    assert peers(between(grouped(["alpha"] * 8), 0, "hierarchical")) == set(range(1, 8))


@pytest.mark.parametrize(("size", "most"), [(4, 4 * MIB), (6, 4 * MIB), (8, 4 * MIB)])
def test_sums_between_hosts_go_over_them(size: int, most: int) -> None:
    for hosts in (grouped(["alpha", "beta"] * (size // 2)), grouped(["alpha"] + ["beta"] * (size - 1))):
        chosen = [between(hosts, rank, elements=most // 4).algorithm for rank in range(size)]
        assert chosen == ["leaders"] * size
        chosen = [between(hosts, rank, elements=most // 4 + 1).algorithm for rank in range(size)]
        assert chosen == ["hierarchical"] * size


def test_one_rank_on_each_host_makes_no_hierarchy() -> None:
    for elements in (1, 1 << 12, 1 << 24):
        plan = between(grouped(range(4)), 0, elements=elements)
        assert plan.algorithm in ("recursive_doubling", "halving_doubling")
