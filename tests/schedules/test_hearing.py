"""Who hears nothing of whom in a call: what a rank knows of the others' calls by its own plan."""

from __future__ import annotations

import random

import pytest

import collx.algorithms  # noqa: F401  (fills the register)
from collx.agreement import unheard, unhearing
from collx.collectives import COLLECTIVES
from collx.plan import Plan
from collx.planner import make_plan
from collx.request import Request
from collx.schedule import REGISTER
from tests.calls import INT64, SUM, Call, even
from tests.schedules.cases import KEYS, NAMES, SEED
from tests.schedules.test_lowering import drawn_call


def planned(call: Call, rank: int) -> Plan:
    blocks = tuple(call.blocks(rank, call.size))
    per_rank = COLLECTIVES[call.collective].per_rank
    request = Request(
        call.collective, blocks if per_rank else (sum(call.counts),), INT64, call.algorithm,
        SUM if COLLECTIVES[call.collective].reduces else None, call.root, call.placed(rank),
        given=call.matrix[rank] if call.matrix else (), agreed=len({n for row in call.matrix for n in row}) <= 1,
    )  # fmt: skip
    return make_plan(request, rank, call.size, capacity=1 << 16, window=2)[0]


@pytest.mark.parametrize("key", KEYS, ids=NAMES)
def test_who_may_be_unheard_says_so(key: tuple[str, str]) -> None:
    """A rank on another host of which one hears nothing sends a word, and must know by itself that it has to."""
    draw = random.Random(f"{SEED} {key}")
    for size in filter(REGISTER[key].sizes, range(2, 8)):
        for call in (drawn_call(key, size, draw), drawn_call(key, size, draw), even(*key, size, 8 * size)):
            plans = [planned(call, rank) for rank in range(size)]
            for rank, plan in enumerate(plans):
                for peer in unheard(plan):
                    assert rank in unhearing(plans[peer]), f"rank {rank} does not hear rank {peer}: {call}, seed {SEED}"


def test_hardly_anybody_sends_a_word_that_is_not_needed() -> None:
    for (collective, name), algorithm in REGISTER.items():
        if not algorithm.sizes(8) or collective in ("gather", "scatter"):
            continue
        call = even(collective, name, 8, 64, root=3 if COLLECTIVES[collective].rooted else 0)
        plans = [planned(call, rank) for rank in range(8)]
        for rank, plan in enumerate(plans):
            assert unhearing(plan) == [peer for peer in range(8) if rank in unheard(plans[peer])], (call, rank)
